"""The run that a job belongs to: a job ends with its run, and runs in the same folder detect each other. No torch."""

import atexit
import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from secrets import token_hex

import psutil
from filelock import FileLock

from rib.base.locks import WITHOUT_LOCKS, acquire

PARENT_RUN = (
    "RIB_PARENT_RUN"  # environment variable: id of the Snakemake process that a job belongs to
)
JOBS_AT_ONCE = "RIB_JOBS_AT_ONCE"  # environment variable: how many jobs this call starts at once
RUNS = Path(".snakemake/runs")  # next to Snakemake's own locks, so that both are deleted together
LOCKED_FILES = Path(".snakemake/locks")
POLL = 0.5  # seconds between checks that the owner is alive
GRACE = 5.0  # seconds that a job has to clean up
STARTED = 3600.0  # seconds within which every run has locked its outputs
_held: list[FileLock] = []  # kept until the process ends


def parent_run() -> psutil.Process | None:
    """The Snakemake process that is an ancestor of this one; none on a cluster node, which may inherit the variable."""
    if (number := os.environ.get(PARENT_RUN)) is None:
        return None
    return next(
        (process for process in psutil.Process().parents() if process.pid == int(number)), None
    )


def end_with_parent() -> None:
    """Stop this process when its run is gone; otherwise it could write at the same time as jobs of the next run."""
    if (run := parent_run()) is not None:
        threading.Thread(target=_end_after, args=(run,), daemon=True).start()


def _end_after(run: psutil.Process) -> None:
    while run.is_running():
        time.sleep(POLL)
    end_process()


def end_process() -> None:
    """Ask this process to clean up and end; kill it if it does not, for example during a long library call."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def end_jobs(running: Callable[[], object]) -> None:
    """End the processes of this run's jobs, as `end_process` does; `running` returns whether any job is running."""
    for send in (psutil.Process.terminate, psutil.Process.kill):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        deadline = time.monotonic() + GRACE
        while running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not running():
            return


def announce(locked: bool, jobs_at_once: int) -> list[str]:
    """Register this process as a run of the current folder until it ends; return the other runs.

    Args:
        locked: see `others`.
        jobs_at_once: how many jobs the run starts at once, which `snakemake status` tells.

    Raises:
        UserError: the file system has no locks.
        OSError: the registration cannot be written.
    """
    RUNS.mkdir(parents=True, exist_ok=True)
    own = RUNS / f"{socket.gethostname()}.{os.getpid()}.{token_hex(4)}.lock"
    atexit.register(_remove, own)
    _held.append(acquire(own))
    _jobs_file(own).write_text(str(jobs_at_once), encoding="utf-8")
    alive = others(locked)
    for path in set(RUNS.glob("*.*.*.lock")) - {own} - alive.keys():
        _remove(path)
    return list(alive.values())


def _jobs_file(registration: Path) -> Path:
    """File with the number of jobs of a run; not its lock, which a write to the file may release."""
    return registration.with_suffix(".jobs")


def _remove(registration: Path) -> None:
    registration.unlink(missing_ok=True)
    _jobs_file(registration).unlink(missing_ok=True)


def jobs_of_others() -> int | None:
    """How many jobs the other active runs of the current folder start at once; None without one."""
    locked = LOCKED_FILES.is_dir() and any(LOCKED_FILES.iterdir())
    numbers = []
    for registration in others(locked):
        file = _jobs_file(registration)
        with contextlib.suppress(OSError, ValueError):
            if file.is_file():  # not a pipe, which would be waited for
                numbers.append(int(file.read_text(encoding="utf-8")))
    return sum(numbers) or None


def others(locked: bool) -> dict[Path, str]:
    """Descriptions of the other active runs of the current folder, by their registrations.

    File locks may not work between machines of a shared filesystem. A run on another machine therefore counts as active
    while any files of the folder are locked (`locked`), and for one hour after its start.
    """
    own, host, alive = {Path(lock.lock_file) for lock in _held}, socket.gethostname(), {}
    for path in sorted(set(RUNS.glob("*.*.*.lock")) - own):
        where, process, _, _ = path.name.rsplit(".", 3)
        with contextlib.suppress(FileNotFoundError):
            since = path.stat().st_mtime
            if is_held(path) if where == host else locked or time.time() - since < STARTED:
                alive[path] = (
                    f"process {process} on {where}, since {datetime.fromtimestamp(since):%Y-%m-%d %H:%M}"
                )
    return alive


def is_held(path: Path) -> bool:
    """Whether a running process of this machine has locked a file; does not change the lock.

    Where the file system has no locks nobody can know, and the answer is yes: what is in use must not be removed.
    """
    try:
        with open(
            path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        ) as file:  # it may be a pipe
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return True
    return False
