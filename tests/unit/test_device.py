"""Device and precision of networks, with stand-ins for GPUs."""

import copy
import ctypes
import io
import logging
from types import SimpleNamespace

import pytest
import torch
from open_clip.transformer import VisionTransformer
from timm.layers import BlurPool2d
from torch import nn

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.base.progress import log
from rib.jobs.job import job
from rib.jobs.messages import message_of
from rib.models import device as devices
from rib.models.full_precision import FullPrecisionConv2d, FullPrecisionLinear, keep_precision
from rib.models.model_settings import ComputeSettings
from rib.models.network import OpenClipClassifier, build
from rib.models.nondeterministic import (
    refuse_layers_without_algorithm,
)
from rib.records.environment import set_device

# Environment variables that assign a GPU to a job.
ASSIGNING = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES", "RIB_GPUS")
GPU_NAME = "NVIDIA A100-SXM4-40GB"
CPU = torch.device("cpu")
CUDA = torch.device("cuda")
BROKEN_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update."


def clip_like(num_classes: int = 1000) -> OpenClipClassifier:
    """A tower like CLIP's for images of 64 pixels, with random weights, in evaluation mode."""
    torch.manual_seed(0)
    tower = VisionTransformer(
        image_size=64, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, output_dim=24
    )
    return OpenClipClassifier(tower, 24, num_classes).eval()


@pytest.fixture(autouse=True)
def torch_as_before():
    """What `start` sets in this process is taken back."""
    policy = dict(devices._policy)
    threads = torch.get_num_threads()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    devices._policy.update(policy)
    set_device({})
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(is_deterministic)


@pytest.fixture
def broken_gpu(monkeypatch, tmp_path):
    """A machine with an NVIDIA GPU and a build of torch with CUDA that can't use it."""

    def fail():
        raise RuntimeError(BROKEN_DRIVER)

    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.setattr(devices, "NVIDIA", driver)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    for variable in ASSIGNING:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(devices, "lock_gpu", lambda: None)  # no lock of this machine is taken
    monkeypatch.setattr(devices, "problem_of_driver", lambda: None)
    monkeypatch.setattr(devices, "DRIVER_VERSION", tmp_path / "version")


@pytest.fixture
def no_device_files(broken_gpu, monkeypatch, tmp_path):
    """The same in a container to which no GPU was given."""
    monkeypatch.setattr(devices, "NVIDIA", tmp_path / "none")


@pytest.fixture
def logged():
    """A function that gives what was logged."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    yield stream.getvalue
    log.removeHandler(handler)


def settings(**changes):
    return ComputeSettings(**{"device": "auto", "threads_per_job": 1, **changes})


# Devices.


def test_a_gpu_that_does_not_work_is_named_with_the_reason_and_the_cpu_computes(broken_gpu, logged):
    assert devices.start(settings()) == CPU
    assert logged().count("NVIDIA") == 2  # once in torch's reason
    assert "is too old" in logged()
    assert "computing on the CPU" in logged()


def test_a_family_that_expects_a_gpu_is_not_computed_on_the_cpu_without_asking(broken_gpu):
    with pytest.raises(UserError, match="driver on your system is too old.*compute.device to cpu"):
        devices.start(settings(expects_gpu=True))
    assert devices.start(settings(expects_gpu=True, device="cpu")) == CPU


def test_a_driver_that_is_too_old_is_named_with_what_to_install(broken_gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(UserError) as refused:
        devices.start(settings(device="cuda"))
    for fact in ("found version 11040", "CUDA 13.0", "580", devices.FOR_OLDER_DRIVER):
        assert fact in str(refused.value)
    # and with its version, where the system knows it
    devices.DRIVER_VERSION.write_text("535.104.05\n")
    assert "535.104.05" in devices.why_cuda_fails()


def test_a_lost_card_is_the_reason_why_cuda_fails(broken_gpu, monkeypatch):
    def fail():
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(devices, "problem_of_driver", lambda: "nvidia-smi: GPU is lost")
    assert "GPU is lost" in devices.why_cuda_fails()


def test_a_build_of_torch_without_cuda_is_the_reason(broken_gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match=r"torch 2\S* is built without CUDA"):
        devices.start(settings(expects_gpu=True))


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_who_hides_the_gpus_hears_nothing_of_them(broken_gpu, logged, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.start(settings(expects_gpu=True)) == CPU and "NVIDIA" not in logged()


def test_a_machine_without_a_gpu_computes_on_the_cpu(no_device_files, logged):
    assert devices.start(settings()) == CPU
    assert "NVIDIA" not in logged()


def test_a_family_that_expects_a_gpu_is_not_computed_without_device_files_either(no_device_files):
    with pytest.raises(UserError, match="driver on your system.*compute.device to cpu"):
        devices.start(settings(expects_gpu=True))


@pytest.mark.parametrize("variable", ASSIGNING)
def test_a_job_that_was_assigned_a_gpu_does_not_compute_on_the_cpu(
    no_device_files, monkeypatch, variable
):
    monkeypatch.setenv(variable, "1")
    assigned = "--resources gpu=1" if variable == "RIB_GPUS" else f"{variable}=1"
    with pytest.raises(UserError, match=f"{assigned} .*driver on your system.*device to cpu"):
        devices.start(settings())
    assert devices.start(settings(device="cpu")) == CPU
    # and who hides it means the CPU
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert devices.start(settings()) == CPU


def test_no_gpu_is_no_assignment(no_device_files, monkeypatch):
    for variable in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("RIB_GPUS", "0")
    assert devices.start(settings()) == CPU


def test_a_driver_without_its_library_is_said(broken_gpu, monkeypatch):
    def find_nothing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", find_nothing)
    with pytest.raises(UserError, match="libcuda.so.1"):
        devices.start(settings(device="cuda"))


def test_cuda_that_is_requested_and_absent_is_an_error_with_the_reason(broken_gpu):
    with pytest.raises(UserError, match="compute.device is 'cuda', but .*driver on your system"):
        devices.start(settings(device="cuda"))


@pytest.fixture
def working_gpu(monkeypatch):
    """A machine with a GPU that computes in bf16; its tensors are on the CPU."""
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: GPU_NAME)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90501)
    # No lock of this machine is taken.
    monkeypatch.setattr(devices, "lock_gpu", lambda: None)


def test_a_gpu_that_cannot_compute_is_a_sentence(working_gpu, monkeypatch):
    """Such as one that is older than the oldest for which torch was built."""

    def fail(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available\nFor debugging consider ...")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(UserError, match=r"\(CUDA error: no kernel image is available\).*to cpu"):
        devices.start(settings())
    assert devices.start(settings(device="cpu")) == CPU


def machine_in_record(folder, monkeypatch):
    """The entry `machine` of the record of a job in a folder."""
    monkeypatch.chdir(folder)
    outputs = {"provenance": "provenance.json"}
    with job(rule="r", name="n", cfg={}, inputs={}, outputs=outputs, log_file="n.log"):
        pass
    return read_json(folder / "provenance.json")["machine"]


def test_gpu_and_effective_precision_are_facts_of_the_device_and_in_the_record(
    working_gpu, tmp_path, monkeypatch
):
    # when
    device = devices.start(settings())
    # then
    facts = devices.facts_of(device)
    assert facts == {
        "device": "cuda",
        "gpu": GPU_NAME,
        "capability": "8.0",
        "precision": "bf16",
        "cuda": "12.6",
        "cudnn": "90501",
    }
    assert machine_in_record(tmp_path, monkeypatch).items() >= facts.items()
    # and with a precision that was chosen
    device = devices.start(settings(precision="fp32"))
    assert devices.facts_of(device)["precision"] == "fp32"


def test_a_record_of_a_job_on_a_cpu_states_its_precision_and_no_gpu(tmp_path, monkeypatch):
    devices.start(settings(device="cpu"))
    machine = machine_in_record(tmp_path, monkeypatch)
    assert (machine["device"], machine["precision"]) == ("cpu", "fp32")
    assert "gpu" not in machine


# Precision.


@pytest.mark.parametrize("is_native", [True, False], ids=["Ampere", "Turing"])
def test_auto_is_bf16_only_where_a_gpu_computes_in_it(monkeypatch, is_native):
    def is_supported(including_emulation=True):
        return is_native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setitem(devices._policy, "precision", "auto")
    assert devices._in_bf16(CUDA) is is_native and not devices._in_bf16(CPU)
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    assert devices._in_bf16(CUDA) and devices._in_bf16(CPU)


def timm_network(architecture):
    torch.manual_seed(0)
    return build("timm", architecture, 7)


NETWORKS = {
    "vit": lambda: timm_network("test_vit"),
    "cnn": lambda: timm_network("test_resnet"),
    "convolution as head": lambda: timm_network("resnetv2_50x1_bit"),
    "timm's linear layer": lambda: timm_network("mobilenetv3_small_050"),
    "two heads": lambda: timm_network("deit_tiny_distilled_patch16_224"),
    "clip": clip_like,
}
SIDES = {"two heads": 224, "vit": 160}  # of images, in pixels; 64 for other networks


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_computes_in_full_precision_where_the_network_is_in_bf16(name):
    network = NETWORKS[name]()
    side = SIDES.get(name, 64)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = network.forward_features(images)
        logits = network.forward_head(features)
    with torch.no_grad():
        of_full_precision = network.forward_head(as_float(features))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, of_full_precision, rtol=0.02, atol=0.02)
    rounded = logits.bfloat16().float()
    assert (logits != rounded).float().mean() > 0.9, "bf16 would have rounded them"


def as_float(features):
    if isinstance(features, tuple):
        return tuple(tensor.float() for tensor in features)
    return features.float()


def test_a_clips_features_have_unit_norm_to_full_precision_in_bf16():
    network = clip_like()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = network.forward_features(torch.randn(4, 3, 64, 64))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4), rtol=0, atol=1e-6)


def test_gradients_reach_the_features_through_a_head_in_full_precision():
    head = FullPrecisionLinear(5, 3)
    features = torch.randn(2, 5).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        head(features).sum().backward()
    expected = head.weight.sum(dim=0).expand(2, 5)
    torch.testing.assert_close(features.grad.float(), expected, rtol=0.01, atol=0.01)
    assert head.weight.grad.dtype == torch.float32


def test_without_autocast_a_head_computes_the_same_bytes_as_torchs_own():
    for own, layer, shape in (
        (nn.Linear, nn.Linear(6, 4), (3, 6)),
        (nn.Conv2d, nn.Conv2d(6, 4, 1), (3, 6, 1, 1)),
    ):
        kept = copy.deepcopy(layer)
        keep_precision([kept])
        features = torch.randn(shape)
        assert type(layer) is own and type(kept) is not own and isinstance(kept, own)
        assert torch.equal(kept(features), layer(features))
        assert torch.equal(kept.double()(features.double()), layer.double()(features.double()))


def test_layers_that_compute_something_else_than_torchs_keep_their_class():
    class Cosine(nn.Linear):
        def forward(self, features):
            return nn.functional.linear(nn.functional.normalize(features), self.weight)

    heads = nn.ModuleList([Cosine(3, 2), nn.Linear(3, 2), nn.Conv2d(3, 2, 1), nn.Identity()])
    keep_precision(heads)
    classes = [type(layer) for layer in heads]
    assert classes == [Cosine, FullPrecisionLinear, FullPrecisionConv2d, nn.Identity]


# Determinism.


@pytest.mark.parametrize(("choice", "warns_only"), [("strict", False), ("warn", True)])
def test_operators_without_a_deterministic_algorithm_fail_or_warn(choice, warns_only):
    devices.start(settings(device="cpu", deterministic=choice))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() is warns_only


def test_torchs_error_about_such_an_operator_names_the_switch_and_what_it_costs():
    torch.use_deterministic_algorithms(True)
    with pytest.raises(RuntimeError) as error:
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
    message = message_of(error.value, "finetune", "a.log")
    assert "put_" in message
    assert "compute.deterministic to warn" in message


class Pooled(nn.Module):
    """Layers of which some have no deterministic gradient on CUDA."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.reflected = nn.ReflectionPad2d(1)
        self.blurred = BlurPool2d(4)
        self.blurred_with_zeros = BlurPool2d(4, pad_mode="constant")
        self.grown = nn.Upsample(scale_factor=2, mode="bilinear")
        self.repeated = nn.Upsample(scale_factor=2, mode="nearest")
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.means = nn.AdaptiveAvgPool2d(7)
        self.head = nn.Linear(4, 2)


def test_a_training_on_cuda_is_refused_for_them_unless_a_warning_is_enough():
    model = Pooled()
    trained = dict(model.named_parameters())
    with pytest.raises(UserError, match="model a: .* reflected, blurred, grown, means; set.*warn"):
        refuse_layers_without_algorithm("a", model, trained, CUDA)
    refuse_layers_without_algorithm("a", model, trained, CPU)
    only_head = {name: trained[name] for name in ("head.weight", "head.bias")}
    refuse_layers_without_algorithm("a", model, only_head, CUDA)
    torch.use_deterministic_algorithms(True, warn_only=True)
    refuse_layers_without_algorithm("a", model, trained, CUDA)
