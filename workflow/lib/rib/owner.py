"""The run that a job belongs to: a job ends with it, and of several runs in one folder each knows of the others. No torch."""

import atexit
import contextlib
import os
import signal
import socket
import threading
import time
from datetime import datetime
from pathlib import Path
from secrets import token_hex

import psutil
from filelock import FileLock, Timeout

OWNER = "RIB_OWNER"  # environment variable: id of the Snakemake process that a job belongs to
RUNS = Path(".snakemake/runs")  # where Snakemake's own locks are: who deletes these deletes both
POLL = 0.5  # seconds between two looks whether the owner lives
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
    os.kill(os.getpid(), signal.SIGTERM)


def announce(locked: bool, folder: Path = RUNS) -> list[str]:
    """Say that this process is a run of the current folder, until it ends, however it does.

    Args:
        locked: whether files of the folder are locked by a run.
        folder: where runs say so.

    Returns:
        The other runs that are at work there, in words. Of a run on another machine of a shared filesystem only its files
        tell, since the kernel may not: it counts while any are locked, and for the hour after its start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    own = folder / f"{host}.{os.getpid()}.{token_hex(4)}.lock"
    _held.append(FileLock(own))
    _held[-1].acquire()
    atexit.register(own.unlink, missing_ok=True)
    others = []
    for path in sorted(set(folder.glob("*.lock")) - {own}):
        where, process, _, _ = path.name.rsplit(".", 3)
        with contextlib.suppress(FileNotFoundError):
            since = path.stat().st_mtime
            if _is_held(path) if where == host else locked or time.time() - since < STARTED:
                others.append(f"process {process} on {where}, since {datetime.fromtimestamp(since):%Y-%m-%d %H:%M}")
            else:
                path.unlink()
    return others


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
