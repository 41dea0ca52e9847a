"""A training that is killed goes on to the same bytes, whatever the method and the moment."""

import copy
import json
import os
import random
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from rib import finetune, resume
from rib.catalog import Catalog
from rib.classes import ClassSpace
from rib.methods import load_mechanism
from rib.methods._base import Images, Task
from rib.models.class_logits import class_members
from rib.models.inputs import Inputs

CPU = torch.device("cpu")
SIDE = 160
TRAINING = {
    "epochs": 3,
    "batch_size": 4,
    "micro_batch_size": "all",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "warmup_steps": 196,
    "warmup_fraction": 0.3,
}
STEPS = 3 * 3
METHODS = ["ft", "linear_probe", "visual_prompt", "lora", "ewc", "lwf", "replay", "linear_probe_released"]


@pytest.fixture(scope="module")
def catalog(pytestconfig):
    return Catalog([pytestconfig.rootpath / "workflow/catalog"])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=1000, img_size=SIDE).eval()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    space = ClassSpace(tuple("abcde"), tuple((10 * i,) for i in range(5)), tuple("abcde"))
    pixels = rng.integers(0, 255, (10, SIDE, SIDE, 3)).astype(np.uint8)
    return SimpleNamespace(pixels=pixels, labels=torch.arange(10) % 5, members=class_members(space, CPU))


def trained(catalog, name, network, images, saved=None, **settings):
    """What a job does: everything anew, then on from what was saved."""
    entry = catalog.methods[name]
    torch.manual_seed(0)
    mechanism = load_mechanism(catalog.mechanism_file(entry.mechanism), {**entry.settings, **settings})
    part = Images(Inputs(images.pixels, [0.5] * 3, [0.5] * 3, CPU), images.labels, images.members)
    mechanism.begin(Task(copy.deepcopy(network), part, part, 0, TRAINING["batch_size"]))
    what = {"model": "m", "method": name, "target": "t"}
    return finetune.train(mechanism, network.state_dict(), TRAINING, 0, CPU, what, saved)


@pytest.mark.parametrize("name", METHODS)
def test_a_training_killed_again_and_again_gives_the_same_bytes(catalog, network, images, name, tmp_path, monkeypatch):
    history, whole = trained(catalog, name, network, images)
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    step, done = finetune._step, []

    def breaks(*arguments):
        result = step(*arguments)
        done.append(1)
        if kills and len(done) == kills[0]:
            del kills[0], done[:]
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(finetune, "_step", breaks)
    # before anything is saved, within an epoch, at its end, and in the last step
    kills = [1, 2, 2, 3, 5]
    for _ in range(len(kills)):
        with pytest.raises(KeyboardInterrupt):
            trained(catalog, name, network, images, tmp_path / "state.safetensors")
    again, resumed = trained(catalog, name, network, images, tmp_path / "state.safetensors")
    assert sum(done) < STEPS, "it did not begin anew"
    assert again == history and resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_a_process_killed_at_random_moments_gives_the_same_bytes(catalog, network, images, tmp_path, monkeypatch):
    """SIGKILL, in the midst of a step or of a save, again and again until one comes through."""
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    saved, ended = tmp_path / "state.safetensors", tmp_path / "ended"
    begun = time.monotonic()
    history, whole = trained(catalog, "ft", network, images)
    length = time.monotonic() - begun
    moments, kills = random.Random(0), 0
    while True:
        child = os.fork()
        if child == 0:
            try:
                again, resumed = trained(catalog, "ft", network, images, saved)
                safetensors.torch.save_file(resumed, ended, {"history": json.dumps(again)})
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0.1, 0.7) * length)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        kills += 1
        assert kills < 60, "it never comes through"
    with safetensors.safe_open(ended, "pt") as file:
        assert json.loads(file.metadata()["history"]) == history
        assert all(torch.equal(file.get_tensor(key), whole[key]) for key in whole)
    assert kills > 1, "it was not killed in the midst"


def test_random_numbers_go_on_where_they_were(catalog, images, tmp_path, monkeypatch):
    """Dropout draws from torch's stream, of which the state is saved too."""
    torch.manual_seed(0)
    dropping = timm.create_model("test_vit", num_classes=1000, img_size=SIDE, drop_rate=0.5).eval()
    history, whole = trained(catalog, "ft", dropping, images, dropout=0.5)
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    step, count = finetune._step, [0]

    def breaks(*arguments):
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(finetune, "_step", breaks)
    with pytest.raises(KeyboardInterrupt):
        trained(catalog, "ft", dropping, images, tmp_path / "s.safetensors", dropout=0.5)
    again, resumed = trained(catalog, "ft", dropping, images, tmp_path / "s.safetensors", dropout=0.5)
    assert again == history and all(torch.equal(resumed[key], whole[key]) for key in whole)
    assert trained(catalog, "ft", dropping, images, dropout=0.0)[0] == trained(catalog, "ft", dropping, images)[0]


def test_nothing_is_saved_by_a_short_training(catalog, network, images, tmp_path):
    trained(catalog, "ft", network, images, tmp_path / "state.safetensors")
    assert not list(tmp_path.iterdir())
