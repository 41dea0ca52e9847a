"""Assign a GPU to each job with file locks, which the kernel releases whenever and however the job ends."""

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from rib.base.errors import UserError
from rib.base.files import is_private
from rib.base.locks import acquire
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


def lock_gpu() -> str | None:
    """Wait for a free GPU, make it the only visible one and return it; call this before CUDA is used.

    Does nothing without a GPU, and under SLURM, which assigns GPUs itself. Raises a UserError if others could open the
    locks, or the file system has none.
    """
    devices = visible_devices()
    if not devices or "SLURM_JOB_ID" in os.environ or _held:
        return None
    folder, waited = _lock_folder(), time.monotonic()
    while (device := _free(devices, folder)) is None:
        if time.monotonic() - waited > 60:
            waited = time.monotonic()
            log.info("waiting for one of %d GPU(s) to become free", len(devices))
        time.sleep(POLL)
    os.environ[VISIBLE] = device
    return device


def _lock_folder() -> Path:
    """Private folder, shared by all projects of this user on this machine; the second choice if that was ever needed."""
    # Not tempfile.gettempdir: when that folder is full it names another one, where nobody sees the locks of before.
    temporary = os.environ.get("TMPDIR") or "/tmp"
    first = Path(temporary, f"rib-gpu-locks-{os.geteuid()}")
    second = Path(os.environ.get("HOME", "/"), f".cache/rib-gpu-locks-{os.uname().nodename}")
    for folder in (second, first) if os.access(second, os.F_OK) else (first, second):
        with contextlib.suppress(OSError):
            folder.parent.mkdir(exist_ok=True)
            if folder.is_dir() and folder.lstat().st_uid == os.geteuid() and not is_private(folder):
                shutil.rmtree(
                    folder, ignore_errors=True
                )  # of an earlier version; others may hold its locks
            folder.mkdir(mode=0o700, exist_ok=True)
            if is_private(folder):
                return folder
    raise UserError(
        f"neither {first} nor {second} can be the folder for your GPU locks: others have or can enter it, or it cannot "
        "be written; remove it, or free some space."
    )


def _free(devices: Sequence[str], folder: Path) -> str | None:
    """Lock a place on the GPU with the fewest jobs; None if all places are taken."""
    for number in range(int(os.environ.get(JOBS_PER_GPU, 1))):
        for device in devices:
            name = "".join(
                letter if letter.isalnum() or letter in "-_" else "-" for letter in device
            )
            path = folder / f"{name}.{number}.lock"
            with contextlib.suppress(Timeout):
                _held.append(acquire(path, timeout=0))
                os.utime(
                    path
                )  # what cleans folders of temporary files removes old ones, held or not
                return device
    return None
