"""Where and how torch computes."""

import contextlib
import ctypes
import os

import torch
from torch import nn

from rib.io import UserError, log
from rib.models.slots import take_slot

# glibc's mallopt(3) parameters, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1

AUTO, BF16 = "auto", "bf16"
_policy = {"precision": AUTO, "compile": False}  # of this process, which is one job's


def start(device: str, threads: int, precision: str = AUTO, compile: bool = False) -> torch.device:
    """Make torch's results reproducible and return the device to use.

    Args:
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.
        threads: torch's threads; the same number gives the same bytes.
        precision: of networks: `fp32`, `bf16` (autocast; weights and losses stay in fp32), or `auto`: bf16 on CUDA, fp32 on
            a CPU.
        compile: whether networks go through torch.compile.

    Raises:
        UserError: `cuda` is asked for and there is none.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that writes NaN into every new tensor
    torch.backends.cudnn.benchmark = False  # it would choose an algorithm by a stopwatch
    # What is computed in fp32 is computed in fp32: TF32 would keep 10 bits of its 23, which torch allows convolutions by
    # default. Speed comes from bf16.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    _policy.update(precision=precision, compile=compile)
    keep_freed_memory()
    if device != "cpu":
        take_slot()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "config, compute.device is 'cuda', but torch finds no CUDA device here; set it to 'auto' or 'cpu'."
        )
    chosen = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    where = f" ({torch.cuda.get_device_name()})" if chosen.type == "cuda" else ""
    log.info(
        "computing on %s%s with %d thread(s) in %s", chosen, where, threads, "bf16" if _in_bf16(chosen) else "fp32"
    )
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


def _in_bf16(device: torch.device) -> bool:
    # On a CPU bf16 pays only where it has matrix units for it (AMX), and its bytes agree between fewer machines.
    return _policy["precision"] == BF16 or (_policy["precision"] == AUTO and device.type == "cuda")


def autocast(device: torch.device) -> torch.autocast:
    """The context in which networks compute, of the precision that `start` was given."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=_in_bf16(device))


def compiled(model: nn.Module) -> nn.Module:
    """The network, in place, through torch.compile where `start` was told so; its tensors keep their names."""
    if _policy["compile"]:
        model.compile()
    return model
