"""Device, precision and reproducibility of torch."""

import contextlib
import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rib.base.devices import describe_device
from rib.base.errors import UserError
from rib.base.progress import log
from rib.jobs.gpu_lock import (
    ASSIGNED_BY_SLURM,
    NONE,
    NVIDIA,
    VISIBLE,
    has_hidden_devices,
    lock_gpu,
    problem_of_driver,
)
from rib.models.model_settings import AUTO, BF16, GPUS, WARN, ComputeSettings
from rib.records.environment import set_device

# glibc's mallopt(3) parameters, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

REMEDY = "repair that, or set compute.device to cpu in config.yaml."
# Oldest NVIDIA driver by major version of CUDA, from the release notes of CUDA's toolkit.
OLDEST_DRIVER = {"12": "525 or newer", "13": "580 or newer"}
DRIVER_VERSION = Path("/sys/module/nvidia/version")  # a file with, for example, 535.104.05
TOO_OLD = "driver on your system is too old"  # in torch's message
# The newest torch whose package on the Python package index is built for CUDA 12 is 2.10.
FOR_OLDER_DRIVER = 'pip install "torch>=2.6,<2.11" torchvision'
_policy = {"precision": AUTO, "compile": False}  # per process; each job has its own


def start(compute: ComputeSettings) -> torch.device:
    """Make torch's results reproducible, and return the device.

    It also sets the process's threads and precision, and waits until a GPU is free. A job calls it
    when it has read indexes, labels and splits, so that none has a GPU that waits for these.

    Raises:
        UserError: There is no CUDA device though `cuda` is requested, a GPU was assigned to this
            job or the family expects one; or there is one that can't compute.
    """
    torch.set_num_threads(compute.threads_per_job)
    _make_deterministic(warns_only=compute.deterministic == WARN)
    _policy.update(precision=compute.precision, compile=compute.compile)
    _reuse_freed_memory()
    if compute.device != "cpu":
        lock_gpu()
    device = _chosen_device(compute)
    facts = facts_of(device)
    set_device(facts)
    log.info("computing on %s with %d thread(s)", describe_device(facts), compute.threads_per_job)
    return device


def facts_of(device: torch.device) -> dict[str, str | None]:
    """The device, and the precision in which networks compute on it, for manifests and records.

    `precision` is `bf16` or `fp32`, as `start` has set it; `auto` is resolved. On a CPU `gpu`,
    `capability`, `cuda` and `cudnn` are None. An example is {"device": "cuda", "gpu": "NVIDIA
    A100-SXM4-40GB", "capability": "8.0", "precision": "bf16", "cuda": "12.6", "cudnn": "90501"}.
    """
    facts: dict[str, str | None] = {
        "device": device.type,
        "gpu": None,
        "capability": None,
        "precision": "bf16" if _in_bf16(device) else "fp32",
        "cuda": None,
        "cudnn": None,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        major, minor = torch.cuda.get_device_capability(device)
        facts["capability"] = f"{major}.{minor}"
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = str(torch.backends.cudnn.version())
    return facts


def record_earlier(
    earlier_devices: Sequence[Mapping[str, str | None]], device: torch.device
) -> dict[str, Any]:
    """Name devices on which this job ran before it was stopped in its record.

    Returns:
        Facts of the device for the manifest, with `earlier_devices`, a list of such facts, if there
        are any.
    """
    facts = facts_of(device)
    if not earlier_devices:
        return dict(facts)
    set_device({**facts, "earlier_devices": "; ".join(map(describe_device, earlier_devices))})
    return {**facts, "earlier_devices": list(earlier_devices)}


def _chosen_device(compute: ComputeSettings) -> torch.device:
    """The device that the settings and the machine give; for errors see `start`.

    Without a working GPU, the CPU computes where nobody expects a GPU, or its user has hidden it.
    """
    if compute.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        _refuse_gpu_that_cannot_compute()
        return torch.device("cuda")
    if compute.device == "cuda":
        raise UserError(
            f"config, compute.device is 'cuda', but {why_cuda_fails()}; set it to 'auto' or 'cpu'."
        )
    if has_hidden_devices():
        return torch.device("cpu")
    assignment = _assignment()
    if assignment is not None:
        raise UserError(f"{assignment} gives this job a GPU, but {why_cuda_fails()}; {REMEDY}")
    if compute.expects_gpu:
        raise UserError(
            f"this family's runs are too long for a CPU, but {why_cuda_fails()}; {REMEDY}"
        )
    if NVIDIA.exists():
        log.warning(
            "this machine has an NVIDIA GPU, but %s; computing on the CPU", why_cuda_fails()
        )
    return torch.device("cpu")


def _assignment() -> str | None:
    """Variable or option that promises this job a GPU, such as `SLURM_JOB_GPUS=0`; or None."""
    for variable in (*ASSIGNED_BY_SLURM, VISIBLE):
        if os.environ.get(variable, "") not in NONE:
            return f"{variable}={os.environ[variable]}"
    gpus = os.environ.get(GPUS, "0")
    return None if gpus == "0" else f"--resources gpu={gpus}"


def _refuse_gpu_that_cannot_compute() -> None:
    """Raise a UserError if torch has a GPU but can't compute on it, such as one that is too old."""
    try:
        torch.ones(1, device="cuda").sum().item()
    except RuntimeError as error:
        reason = _first_sentence(error)
        raise UserError(
            f"torch finds a CUDA device, but can't compute on it ({reason}); {REMEDY}"
        ) from error


def why_cuda_fails() -> str:
    """Why torch has no CUDA device, for a message: `torch 2.7.0 is built without CUDA`."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        if NVIDIA.exists() and not _has_driver_library():  # torch would say that there is no driver
            return "the library of NVIDIA's driver, libcuda.so.1, is missing"
        if TOO_OLD in str(error):
            return _needed_driver(error)
        problem = problem_of_driver()
        reason = _first_sentence(error) + (f"; {problem}" if problem else "")
        return f"torch finds no CUDA device ({reason})"
    return "torch finds no CUDA device"


def _needed_driver(error: RuntimeError) -> str:
    """`NVIDIA's driver is 535.104.05; torch 2.15.0 is built for CUDA 13.0, which needs 580 ...`."""
    try:
        driver = f"NVIDIA's driver is {DRIVER_VERSION.read_text().strip()}"
    except OSError:
        driver = _first_sentence(error)
    major_version = str(torch.version.cuda).partition(".")[0]
    needed = OLDEST_DRIVER.get(major_version, "a newer one")
    return (
        f"{driver}; torch {torch.__version__} is built for CUDA {torch.version.cuda}, which "
        f"needs {needed}: update the driver, or run {FOR_OLDER_DRIVER}"
    )


def _has_driver_library() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _first_sentence(error: Exception) -> str:
    """First sentence of an error's first line, without its point, as part of a message."""
    first_line = str(error).partition("\n")[0]
    sentence, _, _ = first_line.partition(". ")
    return sentence.rstrip(".")


def _make_deterministic(warns_only: bool) -> None:
    """Let torch compute the same results each time, in full precision.

    Args:
        warns_only: whether an operator of CUDA that can't do so is a warning, not an error.
    """
    # cuBLAS is deterministic only with a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=warns_only)
    # Off: a debugging aid that writes NaN into every new tensor, which takes time.
    deterministic = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # not in its types
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by their run time
    # TF32, torch's default for convolutions, keeps only 10 of the 23 mantissa bits.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _reuse_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors, if this system has glibc.

    By default large activations are mapped, page-faulted and unmapped again in each step. With
    memory that is not returned to the system after each operation, a training step of
    EfficientNet-Lite0 at 112 px is 1.8 times as fast on one core (35 to 64 images/s).
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # the largest int


def _in_bf16(device: torch.device) -> bool:
    """Whether networks compute in bf16 on a device, by the precision that `start` has set."""
    if _policy["precision"] == AUTO:
        # On a CPU bf16 is faster only with matrix units (AMX), and its results agree on fewer
        # machines. Before Ampere (T4, V100) GPUs emulate it, and cuDNN has no convolutions in it.
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return _policy["precision"] == BF16


def autocast(device: torch.device) -> torch.autocast:
    """Autocast context with the precision set by `start`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=_in_bf16(device))


def keep_casts(device: torch.device) -> torch.autocast:
    """Context in which networks cast their weights once, without gradients, in all `autocast`s.

    Autocast keeps the casts of parameters that require gradients, by parameter, until the outermost
    context ends. Within this one, which casts nothing itself, no weight may change.
    """
    return torch.autocast(device.type, enabled=False)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's random numbers, {"cpu": tensor}, on a GPU with "cuda" besides."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Let torch draw the numbers that followed `random_state` on this device."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def compiled(model: nn.Module) -> nn.Module:
    """Compile the network in place if set by `start`; its tensors keep their names."""
    if _policy["compile"]:
        model.compile()
    return model
