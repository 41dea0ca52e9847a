"""Where and how torch computes."""

import contextlib
import ctypes
import os

import torch

from rib.io import UserError, log
from rib.models.slots import take_slot

# glibc's mallopt(3) parameters, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1


def start(device: str, threads: int) -> torch.device:
    """Make torch's results reproducible and return the device to use.

    Args:
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.
        threads: torch's threads; the same number gives the same bytes.

    Raises:
        UserError: `cuda` is asked for and there is none.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that writes NaN into every new tensor
    torch.backends.cudnn.benchmark = False
    keep_freed_memory()
    if device != "cpu":
        take_slot()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "config, compute.device is 'cuda', but torch finds no CUDA device here; set it to 'auto' or 'cpu'."
        )
    chosen = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    where = f" ({torch.cuda.get_device_name()})" if chosen.type == "cuda" else ""
    log.info("computing on %s%s with %d thread(s)", chosen, where, threads)
    return chosen


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors instead of returning it to the system after each operation.

    By default every activation of some MB is mapped, page-faulted and unmapped again at each step; without that,
    a training step of EfficientNet-Lite0 at 112 px is 1.8 times as fast on one core (35 to 64 images/s).
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)


def autocast(device: torch.device) -> torch.autocast:
    """bf16 autocast on CUDA; on a CPU full fp32, whose bytes agree between more machines."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
