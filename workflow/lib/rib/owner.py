"""The run that a job belongs to: a job ends with it, and of several runs in one folder each knows of the others. No torch."""

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

OWNER = "RIB_OWNER"  # environment variable: id of the Snakemake process that a job belongs to
RUNS = Path(".snakemake/runs")  # where Snakemake's own locks are: who deletes these deletes both
POLL = 0.5  # seconds between two looks whether the owner lives
GRACE = 5.0  # seconds in which a job that is to end cleans up
STARTED = 3600.0  # seconds within which any run has come to lock what it makes
_held: list[FileLock] = []  # to the end of the process


def owner() -> psutil.Process | None:
    """The Snakemake process that this one was started by.

    None where there is none; on a cluster's node the variable may be inherited, but its process isn't among ours.
    """
    if (number := os.environ.get(OWNER)) is None:
        return None
    return next((process for process in psutil.Process().parents() if process.pid == int(number)), None)


def end_with_owner() -> None:
    """Have this process stopped once its run is gone: killed alone, it would leave jobs that write beside the next run's."""
    if (run := owner()) is not None:
        threading.Thread(target=_end_after, args=(run,), daemon=True).start()


def _end_after(run: psutil.Process) -> None:
    while run.is_running():
        time.sleep(POLL)
    end_process()


def end_process() -> None:
    """Have this process clean up and end; end it where it does not come to that, in one long call of a library for example."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def end_jobs(running: Callable[[], object]) -> None:
    """End the processes of this run's jobs, as `end_process` does.

    Args:
        running: whether any job runs.
    """
    for send in (psutil.Process.terminate, psutil.Process.kill):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        deadline = time.monotonic() + GRACE
        while running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not running():
            return


def announce(locked: bool, folder: Path = RUNS) -> list[str]:
    """Say that this process is a run of the current folder, until it ends, however it does.

    Args:
        locked: whether files of the folder are locked by a run.
        folder: where runs say so.

    Returns:
        The other runs that are at work there, see `others`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"{socket.gethostname()}.{os.getpid()}.{token_hex(4)}.lock"
    _held.append(FileLock(own))
    _held[-1].acquire()
    atexit.register(own.unlink, missing_ok=True)
    alive = _others(locked, folder)
    for path in set(folder.glob("*.lock")) - {own} - alive.keys():
        path.unlink(missing_ok=True)
    return list(alive.values())


def others(locked: bool, folder: Path = RUNS) -> list[str]:
    """The runs of the current folder that are at work besides this process, in words.

    Of a run on another machine of a shared filesystem only its files tell, since the kernel may not: it counts while any are
    locked, and for the hour after its start.

    Args:
        locked: whether files of the folder are locked by a run.
        folder: where runs say so.
    """
    return list(_others(locked, folder).values())


def _others(locked: bool, folder: Path) -> dict[Path, str]:
    own, host, alive = {Path(lock.lock_file) for lock in _held}, socket.gethostname(), {}
    for path in sorted(set(folder.glob("*.lock")) - own):
        where, process, _, _ = path.name.rsplit(".", 3)
        with contextlib.suppress(FileNotFoundError):
            since = path.stat().st_mtime
            if is_held(path) if where == host else locked or time.time() - since < STARTED:
                alive[path] = f"process {process} on {where}, since {datetime.fromtimestamp(since):%Y-%m-%d %H:%M}"
    return alive


def is_held(path: Path) -> bool:
    """Whether a living process of this machine has locked a file; a look that changes nothing."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
