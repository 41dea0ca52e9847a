"""The run that a job belongs to, with which it ends. No torch."""

import fcntl
import os
import signal
import threading
import time
from pathlib import Path

import psutil

from rib.base.locks import WITHOUT_LOCKS

# Environment variable of jobs: process id of the Snakemake process that a job belongs to.
PARENT_RUN = "RIB_PARENT_RUN"

POLL = 0.5  # seconds between checks that the owner is alive
GRACE = 5.0  # seconds that a job has to clean up


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
