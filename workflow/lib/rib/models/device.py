"""Device, precision and reproducibility of torch."""

import contextlib
import ctypes
import os

import torch
from torch import nn

from rib.base.errors import UserError
from rib.base.progress import log
from rib.jobs.gpu_lock import lock_gpu
from rib.models.settings import AUTO, BF16, ComputeSettings

# glibc's mallopt(3) parameters, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

_policy = {"precision": AUTO, "compile": False}  # per process; each job has its own


def start(compute: ComputeSettings) -> torch.device:
    """Make torch's results reproducible, and return the device.

    It also sets the process's threads and precision, and waits until a GPU is free.

    Raises a UserError if `cuda` is requested but absent.
    """
    torch.set_num_threads(compute.threads_per_job)
    _make_deterministic()
    _policy.update(precision=compute.precision, compile=compute.compile)
    _reuse_freed_memory()
    if compute.device != "cpu":
        lock_gpu()
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "config, compute.device is 'cuda', but torch finds no CUDA device; "
            "set it to 'auto' or 'cpu'."
        )
    if compute.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda")
        description = f"cuda ({torch.cuda.get_device_name()})"
    else:
        device = torch.device("cpu")
        description = "cpu"
    precision = "bf16" if _in_bf16(device) else "fp32"
    log.info(
        "computing on %s with %d thread(s) in %s", description, compute.threads_per_job, precision
    )
    return device


def _make_deterministic() -> None:
    """Let torch compute the same results each time, in full precision."""
    # cuBLAS is deterministic only with a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # A debugging aid that writes NaN into every new tensor.
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
        # machines.
        return device.type == "cuda"
    return _policy["precision"] == BF16


def autocast(device: torch.device) -> torch.autocast:
    """Autocast context with the precision set by `start`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=_in_bf16(device))


def compiled(model: nn.Module) -> nn.Module:
    """Compile the network in place if set by `start`; its tensors keep their names."""
    if _policy["compile"]:
        model.compile()
    return model
