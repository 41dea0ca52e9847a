"""A GPU of its own for each job: a locked slot, which the kernel frees when the job ends, however it does."""

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from rib.io import log
from rib.runs import JOBS_PER_GPU

VISIBLE = "CUDA_VISIBLE_DEVICES"
NONE = {"", "-1", "NoDevFiles"}  # what stands for no device in it
POLL = 0.5  # seconds between two rounds of looking for a free slot
_held: list[FileLock] = []  # to the end of the process


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES gives them (numbers, UUIDs, MIG parts)."""
    if (listed := os.environ.get(VISIBLE)) is not None:
        return [name for name in map(str.strip, listed.split(",")) if name not in NONE]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def take_slot(folder: Path | None = None) -> str | None:
    """Wait for a slot of a GPU and make it the only one that this process sees; call it before CUDA is used.

    A scheduler that has assigned GPUs (SLURM) is left to it.

    Args:
        folder: of the locks; by default one that all projects of this user on this machine share.

    Returns:
        The GPU; None where there is none or a scheduler has assigned it.
    """
    devices = visible_devices()
    if not devices or "SLURM_JOB_ID" in os.environ or _held:
        return None
    slots = int(os.environ.get(JOBS_PER_GPU, 1))
    folder = folder or Path(tempfile.gettempdir()) / f"rib-gpu-slots-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    waited = time.monotonic()
    while (device := _free(devices, slots, folder)) is None:
        if time.monotonic() - waited > 60:
            waited = time.monotonic()
            log.info("waiting for a free slot of %d GPU(s)", len(devices))
        time.sleep(POLL)
    os.environ[VISIBLE] = device
    return device


def _free(devices: Sequence[str], slots: int, folder: Path) -> str | None:
    """A GPU of which a slot could be locked, emptier ones first."""
    for slot in range(slots):
        for device in devices:
            name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in device)
            lock = FileLock(folder / f"{name}.{slot}.lock", timeout=0)
            with contextlib.suppress(Timeout):
                lock.acquire()
                _held.append(lock)
                return device
    return None
