"""Assign a GPU to each job with file locks.

The kernel releases these whenever and however the job ends.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from rib.base.errors import UserError
from rib.base.files import is_private
from rib.base.locks import acquire
from rib.base.progress import log

JOBS_PER_GPU = "RIB_JOBS_PER_GPU"  # environment variable: how many jobs may share a GPU
VISIBLE = "CUDA_VISIBLE_DEVICES"
SLURM_JOB = "SLURM_JOB_ID"  # environment variable: number of the allocation
# Environment variable: how many GPUs of this machine SLURM has assigned; absent if it assigns none.
SLURM_GPUS = "SLURM_GPUS_ON_NODE"
# Environment variables with the GPUs that SLURM has assigned to a step or job, as it numbers them.
ASSIGNED_BY_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
NONE = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES that mean no device
# It exists where NVIDIA's driver is loaded, in a container only if it was given a GPU.
NVIDIA = Path("/dev/nvidiactl")
# Writes a line for each GPU, `GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5b...)`, and below it one
# for each of its MIG instances, `  MIG 3g.20gb Device 0: (UUID: MIG-c6d4...)`.
LIST_DEVICES = ("nvidia-smi", "-L")
LONGEST_LISTING = 120  # seconds; a driver that must be loaded first takes some
POLL = 0.5  # seconds between two attempts
REMIND = 60  # seconds between two log lines of a job that waits
_held: list[FileLock] = []  # kept until the process ends


class Devices(NamedTuple):
    """GPUs that this process may use."""

    names: list[str]  # as in CUDA_VISIBLE_DEVICES: numbers, UUIDs or MIG instances
    problem: str | None = None  # why GPUs may be missing: "nvidia-smi is not installed"


def visible_devices() -> Devices:
    """GPUs that this process may use.

    CUDA isn't asked: it would read CUDA_VISIBLE_DEVICES, which it does only once in a process, and
    a job sets it to the GPU that it has locked.
    """
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return _devices_of_machine()
    names = [name.strip() for name in visible.split(",")]
    # As in CUDA, where -1 hides all that follow.
    return Devices(list(takewhile(lambda name: name not in NONE, names)))


def _devices_of_machine() -> Devices:
    """All GPUs of this machine or container, MIG instances instead of their GPUs.

    Whole GPUs have numbers, so that a run whose user names them by numbers sees the same locks.
    Where one is lost they have UUIDs, since CUDA may count without the lost one.
    """
    try:
        listing = subprocess.run(
            LIST_DEVICES, capture_output=True, text=True, timeout=LONGEST_LISTING
        )
    except FileNotFoundError:  # some containers have a GPU without the driver's programs
        files = [str(number) for number, _ in enumerate(NVIDIA.parent.glob("nvidia[0-9]*"))]
        return Devices(files, "nvidia-smi is not installed, so device files are counted")
    except (OSError, subprocess.SubprocessError) as error:
        return Devices([], f"{' '.join(LIST_DEVICES)} fails ({type(error).__name__})")
    problem = None
    if listing.returncode != 0:  # the other GPUs of a node with a lost one are listed nevertheless
        problem = _problem_in(listing)
    uuids = re.findall(r"\(UUID: ([^)]+)\)", listing.stdout)
    if problem is None and not any(map(_is_mig, uuids)):
        return Devices([str(number) for number, _ in enumerate(uuids)])
    if not uuids:
        return Devices([], problem)
    devices = []
    for uuid, next_uuid in zip(uuids, [*uuids[1:], ""], strict=True):
        is_divided = not _is_mig(uuid) and _is_mig(next_uuid)
        if not is_divided:
            devices.append(uuid)
    return Devices(devices, problem)


def problem_of_driver() -> str | None:
    """How nvidia-smi fails, such as `nvidia-smi -L exits with 15 (... GPU is lost)`.

    None if it works, or is not installed.
    """
    if shutil.which(LIST_DEVICES[0]) is None:
        return None
    return _devices_of_machine().problem


def gigabytes_of_other_processes() -> float:
    """Memory of this job's GPU that neither is free nor held by this job, about, in GB.

    0 where CUDA doesn't answer.
    """
    import torch

    try:
        free, total = torch.cuda.mem_get_info()
        return (total - free - torch.cuda.memory_reserved()) / 1e9
    except (RuntimeError, AssertionError):
        return 0.0


def _problem_in(listing: subprocess.CompletedProcess[str]) -> str:
    """`nvidia-smi -L exits with 15 (Unable to determine the device handle for GPU 3: ...)`."""
    lines = [*listing.stderr.splitlines(), *listing.stdout.splitlines()]
    others = [line.strip() for line in lines if line.strip() and "(UUID: " not in line]
    said = f" ({others[0].rstrip('.')})" if others else ""
    return f"{' '.join(LIST_DEVICES)} exits with {listing.returncode}{said}"


def _is_mig(uuid: str) -> bool:
    """Whether this is a part of a GPU: `MIG-c6d4f1ef-...`, or `MIG-GPU-5d5b.../1/0`."""
    return uuid.startswith("MIG-")


def has_hidden_devices() -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides all GPUs, with which a user chooses the CPU."""
    return VISIBLE in os.environ and not visible_devices().names


def lock_gpu() -> str | None:
    """Wait for a free GPU, make it the only visible one and return it.

    Call this before CUDA is used. Does nothing without a GPU, or with a build of torch that can't
    use one. Two jobs in an allocation of SLURM with one GPU lock it, too.

    Raises:
        UserError: there is no private folder for locks, the file system has no locks, torch sees
            several GPUs whose names are unknown, or several after one was locked.
    """
    import torch

    if torch.version.cuda is None or _held:
        return None
    devices, problem = visible_devices()
    if problem is not None and devices:
        log.warning("%s; jobs share %d GPU(s)", problem, len(devices))
    if not devices:
        _refuse_unnamed_devices(problem)
        return None
    folder = _lock_folder()
    last_reminder = time.monotonic()
    device = _lock_free_device(devices, folder)
    while device is None:
        if time.monotonic() - last_reminder > REMIND:
            last_reminder = time.monotonic()
            log.info("waiting for one of %d GPU(s) to become free", len(devices))
        time.sleep(POLL)
        device = _lock_free_device(devices, folder)
    os.environ[VISIBLE] = device
    # Without CUDA, here or in the driver, the caller says what is wrong.
    number_of_devices = 0
    if torch.cuda.is_available():
        # Before, `device_count` may ask the driver and not CUDA.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        number_of_devices = torch.cuda.device_count()
    if number_of_devices > 1:
        raise UserError(
            f"GPU {device} is locked, but torch sees {number_of_devices} GPUs, since CUDA was used "
            "before: find what uses it when Python starts or modules are imported, or run with "
            f"{VISIBLE}={device}."
        )
    return device


def _refuse_unnamed_devices(problem: str | None) -> None:
    """Raise a UserError if CUDA sees several GPUs though none is listed, so none can be locked."""
    import torch

    if VISIBLE in os.environ or not torch.cuda.is_available():
        return
    number_of_devices = torch.cuda.device_count()
    if number_of_devices > 1:
        names = ",".join(map(str, range(number_of_devices)))
        raise UserError(
            f"torch sees {number_of_devices} GPUs, but {problem or 'nvidia-smi -L lists none'}, so "
            f"that jobs can't lock one each; repair that, or name the GPUs: {VISIBLE}={names}."
        )


def resources_of_gpus(jobs_per_gpu: int) -> str | None:
    """Option of Snakemake for as many jobs as GPUs take: `--resources gpu=4`; None without a GPU.

    CUDA isn't used.
    """
    places = len(visible_devices().names) * jobs_per_gpu
    return f"--resources gpu={places}" if places else None


def uncounted_gpus(jobs_per_gpu: int) -> str | None:
    """What to say if GPUs are seen, but Snakemake was not told their number; None without a GPU.

    Without it as many jobs as processors start, and hold memory while they wait for a GPU.
    """
    option = resources_of_gpus(jobs_per_gpu)
    if option is None:
        return None
    return (
        f"this machine has GPUs, so add {option}, without which more jobs start than GPUs take; or "
        "set compute.device to cpu in config.yaml."
    )


def _lock_folder() -> Path:
    """Private folder, shared by all projects of this user on this machine.

    Somebody else may have taken the first of two choices. A second that was ever needed is used
    from then on, so that all jobs see the same locks.
    """
    # Not tempfile.gettempdir: when that folder is full it names another one, where nobody sees the
    # locks of before.
    temporary = os.environ.get("TMPDIR") or "/tmp"
    first = Path(temporary, f"rib-gpu-locks-{os.geteuid()}")
    second = Path(os.environ.get("HOME", "/"), f".cache/rib-gpu-locks-{os.uname().nodename}")
    folders = (second, first) if os.access(second, os.F_OK) else (first, second)
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if is_private(folder):
                return folder
    raise UserError(
        f"neither {first} nor {second} can be the folder for your GPU locks: others have or can "
        "enter it, or it cannot be written; remove it, or free some space."
    )


def _lock_free_device(devices: Sequence[str], folder: Path) -> str | None:
    """Lock a place on the GPU with the fewest jobs; its name, or None if all places are taken.

    Each GPU has as many places, that is lock files, as jobs may share it.
    """
    places_per_gpu = int(os.environ.get(JOBS_PER_GPU, 1))
    allocation = _allocation()
    for number in range(places_per_gpu):
        for device in devices:
            path = folder / f"{allocation}{_name_in_path(device)}.{number}.lock"
            with contextlib.suppress(Timeout):
                _held.append(acquire(path, timeout=0))
                # What cleans folders of temporary files removes old ones, held or not.
                os.utime(path)
                return device
    return None


def _allocation() -> str:
    """Beginning of the names of locks: `slurm-123-` in an allocation with GPUs, else nothing.

    SLURM may number the GPUs of each allocation and of each of its steps from 0. Without this
    prefix, jobs on different GPUs would wait for each other, since all have a GPU 0. Variables of
    steps and allocations have the numbers of GPUs on the machine: `slurm-123-2-3-`.
    """
    if SLURM_JOB not in os.environ:
        return ""
    prefix = f"slurm-{_name_in_path(os.environ[SLURM_JOB])}-"
    for variable in ASSIGNED_BY_SLURM:
        if os.environ.get(variable):
            return f"{prefix}{_name_in_path(os.environ[variable])}-"
    return prefix if SLURM_GPUS in os.environ else ""


def _name_in_path(name: str) -> str:
    """A device or job in a lock's file name: `MIG-GPU-5d5b-1-0` for `MIG-GPU-5d5b/1/0`."""
    characters = []
    for character in name:
        is_plain = character.isalnum() or character in "-_"
        characters.append(character if is_plain else "-")
    return "".join(characters)
