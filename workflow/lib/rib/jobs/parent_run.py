"""The run that a job belongs to. No torch.

A job ends with its run, and runs in the same folder detect each other.
"""

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

# Environment variable of jobs: process id of the Snakemake process that a job belongs to.
PARENT_RUN = "RIB_PARENT_RUN"

RUNS = Path(".snakemake/runs")  # next to Snakemake's own locks, so that both are deleted together
REGISTRATIONS = "*.*.*.lock"  # pattern of the files in RUNS: host, process id and a random number
POLL = 0.5  # seconds between checks that the owner is alive
GRACE = 5.0  # seconds that a job has to clean up
SECONDS_TO_LOCK = 3600.0  # after its start, within which every run has locked its outputs
_held: list[FileLock] = []  # kept until the process ends


def parent_run() -> psutil.Process | None:
    """The Snakemake process that is an ancestor of this one.

    None on a cluster node, which may inherit the environment variable.
    """
    process_id = os.environ.get(PARENT_RUN)
    if process_id is None:
        return None
    for process in psutil.Process().parents():
        if process.pid == int(process_id):
            return process
    return None


def end_with_parent() -> None:
    """Stop this process when its run is gone.

    Otherwise it could write at the same time as jobs of the next run.
    """
    run = parent_run()
    if run is not None:
        threading.Thread(target=_end_after, args=(run,), daemon=True).start()


def _end_after(run: psutil.Process) -> None:
    """Wait until a run is gone, and then end this process."""
    while run.is_running():
        time.sleep(POLL)
    end_process()


def end_process() -> None:
    """Ask this process to clean up and end; kill it if it does not.

    It does not, for example, during a long call of a library.
    """
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def end_jobs(is_running: Callable[[], object]) -> None:
    """End the processes of this run's jobs, as `end_process` does.

    Args:
        is_running: returns whether any job is running.
    """
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        deadline = time.monotonic() + GRACE
        while is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not is_running():
            return


def announce(files_are_locked: bool) -> list[str]:
    """Register this process as a run of the current folder until it ends.

    Args:
        files_are_locked: see `other_active_runs`.

    Returns:
        Descriptions of the other active runs.

    Raises:
        UserError: The file system has no locks.
        OSError: The registration cannot be written.
    """
    RUNS.mkdir(parents=True, exist_ok=True)
    registration = RUNS / f"{socket.gethostname()}.{os.getpid()}.{token_hex(4)}.lock"
    atexit.register(registration.unlink, missing_ok=True)
    _held.append(acquire(registration))
    active_runs = other_active_runs(files_are_locked)
    for path in sorted(RUNS.glob(REGISTRATIONS)):
        if path != registration and path not in active_runs:
            path.unlink(missing_ok=True)
    return list(active_runs.values())


def other_active_runs(files_are_locked: bool) -> dict[Path, str]:
    """Descriptions of the other active runs of the current folder, by their registrations.

    A description is `process 4711 on host, since 2025-06-01 12:00`. File locks may not work between
    machines of a shared filesystem. A run on another machine therefore counts as active while any
    files of the folder are locked, and for one hour after its start.

    Args:
        files_are_locked: whether Snakemake has locked files of the folder.
    """
    own_registrations = {Path(lock.lock_file) for lock in _held}
    other_registrations = set(RUNS.glob(REGISTRATIONS)) - own_registrations
    active_runs = {}
    for path in sorted(other_registrations):
        host, process_id, _random, _ending = path.name.rsplit(".", 3)  # a host may have dots
        with contextlib.suppress(FileNotFoundError):  # the run may end meanwhile
            start = path.stat().st_mtime  # nothing is written to it later
            if host == socket.gethostname():
                is_active = is_held(path)
            else:
                has_started_lately = time.time() - start < SECONDS_TO_LOCK
                is_active = files_are_locked or has_started_lately
            if is_active:
                start_text = f"{datetime.fromtimestamp(start):%Y-%m-%d %H:%M}"
                active_runs[path] = f"process {process_id} on {host}, since {start_text}"
    return active_runs


def is_held(path: Path) -> bool:
    """Whether a running process of this machine has locked a file; does not change the lock.

    Where the file system has no locks nobody can know, and the answer is yes: what is in use must
    not be removed.
    """
    try:
        with open(path, opener=_open_without_waiting) as file:
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


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file that may be a pipe, which would otherwise be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)
