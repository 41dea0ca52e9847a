"""What a training step asks of a GPU, counted without one.

Operators are seen as torch dispatches them, forward and backward, of each method that trains. On
the CPU these are values that the host reads and operators that raise on CUDA; on a stand-in for a
GPU, copies between host and device, too.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from rib.models import device as devices
from tiny.models import census, stand_in_gpu
from tiny.models.architectures import ARCHITECTURES
from tiny.tiers import first

CASES = [(network, name) for network in census.NETWORKS for name in census.methods_on(network)]
CASES_OF_THE_FIRST_NETWORK = sum(network == census.NETWORKS[0] for network, _ in CASES)


@pytest.fixture(autouse=True)
def random_numbers_as_before():
    """Networks and their heads are drawn from torch's generator."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.mark.parametrize(("network", "name"), first(CASES, CASES_OF_THE_FIRST_NETWORK))
def test_no_step_waits_for_a_gpu_or_raises_on_it(network, name, monkeypatch):
    monkeypatch.setitem(devices._policy, "precision", "bf16")  # as on today's GPUs
    assert census.faults_of(name, network) == []


def test_each_method_that_trains_is_counted_on_some_network():
    counted = {name for _, name in CASES}
    assert {method.name for method in census.CATALOG.methods.values() if method.trains} <= counted


def reads_a_value(x):
    return x * x.sum().item()


def has_a_shape_that_depends_on_values(x):
    return x[x > 0]


def pads_by_reflection(x):
    return nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")


def sums_cumulatively(x):
    return x.cumsum(0)


def sums_whole_numbers_cumulatively(x):
    return x * (x > 0).int().cumsum(0)


@pytest.mark.parametrize(
    ("function", "faults"),
    [
        (reads_a_value, {"_local_scalar_dense.default lets the host wait"}),
        (
            has_a_shape_that_depends_on_values,
            {"index.Tensor lets the host wait", "index_put.default lets the host wait"},
        ),
        (pads_by_reflection, {"reflection_pad2d_backward.default raises on CUDA"}),
        (sums_cumulatively, {"cumsum.default raises on CUDA"}),
        (sums_whole_numbers_cumulatively, set()),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_the_census_notes(function, faults):
    counting = census.Census()
    counting.counts = True
    images = torch.linspace(-1, 1, 96).view(2, 3, 4, 4).requires_grad_()
    with counting:
        function(images).sum().backward()
    notes = {note.removeprefix("aten.").partition(",")[0] for note in counting.faults}
    assert notes == faults


# On the stand-in for a GPU.

needs_stand_in = pytest.mark.skipif(
    not stand_in_gpu.is_possible(),
    reason=f"torch {torch.__version__} has no backends that are written in Python",
)


def printed_on_stand_in(*command):
    """What a process of its own prints as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    printed = subprocess.check_output([sys.executable, *command], env=environment, text=True)
    return json.loads(printed)


@needs_stand_in
@pytest.mark.thorough
@pytest.mark.parametrize("network", census.NETWORKS)
def test_no_step_copies_between_host_and_gpu_while_one_waits_for_the_other(network):
    faults = printed_on_stand_in("-m", "tiny.models.census", network)
    assert list(faults) == census.methods_on(network)
    assert {name: notes for name, notes in faults.items() if notes} == {}


# Architectures whose own code copies to the GPU in a step: in training, timm draws the positions of
# DINOv3's patches at random on the host (RotaryEmbeddingDinoV3), two numbers for each.
COPYING = {"dinov3", "dinov3_qkv_bias"}


@needs_stand_in
@pytest.mark.thorough
def test_all_tensors_of_an_architecture_are_on_the_gpu():
    faults = printed_on_stand_in("-m", "tiny.models.census", "architectures")
    assert list(faults) == list(ARCHITECTURES)
    faulty = {name: notes for name, notes in faults.items() if notes}
    assert faulty.keys() == COPYING
    for (note,) in faulty.values():
        assert note.startswith("aten._to_copy.default copies from the host while the GPU waits")


PLANTED = """
import json
import numpy as np
import torch
from tiny.models.census import Census
from tiny.models.stand_in_gpu import stand_in_gpu

planted = {
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "number": lambda x: x * torch.tensor(3.0, device=x.device),
    "index of NumPy": lambda x: x[np.array([1, 0])],
    "labels": lambda x: torch.arange(2).to(x.device),
    "two devices": lambda x: x + torch.ones(2),
    "asynchronous": lambda x: torch.arange(2).to(x.device, non_blocking=True),
    "made there": lambda x: torch.zeros(2, device=x.device) + 1.5 * x,
}
notes = {}
with stand_in_gpu() as device:
    x = torch.ones(2).to(device)
    for name, function in planted.items():
        census = Census()
        with census:
            census.counts = True
            try:
                function(x)
            except RuntimeError as error:
                census.faults.add(str(error))
        notes[name] = sorted(census.faults)
print(json.dumps(notes))
"""


@needs_stand_in
@pytest.mark.thorough
def test_on_the_stand_in_the_census_notes_copies_and_mixed_devices():
    notes = printed_on_stand_in("-c", PLANTED)
    to_host = ["aten._to_copy.default copies to the host, from elsewhere"]
    from_host = ["aten._to_copy.default copies from the host while the GPU waits, from elsewhere"]
    assert notes == {
        "cpu": to_host,
        "tolist": to_host,
        "number": from_host,
        "index of NumPy": from_host,
        "labels": from_host,
        "two devices": ["aten.add.Tensor has tensors on ['cpu', 'standin:0']"],
        "asynchronous": [],
        "made there": [],
    }


STORED_FEATURES = """
import json
import numpy as np
import torch
from rib.methods import linear_probe
from tiny.models import census
from tiny.models.stand_in_gpu import stand_in_gpu

devices = {}
algorithms = []
make = linear_probe.LinearProbing.setup

def set_up(self, task):
    make(self, task)
    algorithms.append(self)

linear_probe.LinearProbing.setup = set_up
with stand_in_gpu() as device:
    for limit in (0, 2**31):
        linear_probe.LARGEST_STORED = limit
        census.trained("linear_probe", "resnet", device)
        stored = algorithms[-1].stored_features
        features = algorithms[-1].features(np.array([1, 0]))
        devices[limit] = [stored.device.type, features.device.type]
print(json.dumps(devices))
"""


@needs_stand_in
@pytest.mark.thorough
def test_features_that_are_too_large_for_the_gpu_are_on_the_host_and_batches_of_them_on_the_gpu():
    devices = printed_on_stand_in("-c", STORED_FEATURES)
    assert devices == {"0": ["cpu", "standin"], str(2**31): ["standin", "standin"]}
