"""Assign a GPU to each job with file locks, which the kernel releases whenever and however the job ends."""

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from rib.base.progress import log

JOBS_PER_GPU = "RIB_JOBS_PER_GPU"  # environment variable: how many jobs may share a GPU
VISIBLE = "CUDA_VISIBLE_DEVICES"
NONE = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES that mean no device
POLL = 0.5  # seconds between two attempts
_held: list[FileLock] = []  # kept until the process ends


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES (numbers, UUIDs, MIG devices)."""
    if (listed := os.environ.get(VISIBLE)) is not None:
        return [name for name in map(str.strip, listed.split(",")) if name not in NONE]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def lock_gpu(folder: Path | None = None) -> str | None:
    """Wait for a free GPU, make it the only visible one and return it; call this before CUDA is used.

    Does nothing without a GPU, and under SLURM, which assigns GPUs itself.

    Args:
        folder: folder of the locks; by default shared by all projects of this user on this machine.
    """
    devices = visible_devices()
    if not devices or "SLURM_JOB_ID" in os.environ or _held:
        return None
    places = int(os.environ.get(JOBS_PER_GPU, 1))
    folder = folder or Path(tempfile.gettempdir()) / f"rib-gpu-locks-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    waited = time.monotonic()
    while (device := _free(devices, places, folder)) is None:
        if time.monotonic() - waited > 60:
            waited = time.monotonic()
            log.info("waiting for one of %d GPU(s) to become free", len(devices))
        time.sleep(POLL)
    os.environ[VISIBLE] = device
    return device


def _free(devices: Sequence[str], places: int, folder: Path) -> str | None:
    """Lock a place on the GPU with the fewest jobs; None if all places are taken."""
    for number in range(places):
        for device in devices:
            name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in device)
            lock = FileLock(folder / f"{name}.{number}.lock", timeout=0)
            with contextlib.suppress(Timeout):
                lock.acquire()
                _held.append(lock)
                return device
    return None
