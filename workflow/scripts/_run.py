"""Shared by all scripts: where the library is, and how a script runs as a job."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rib.jobs.script import run, show_user_errors_as_sentences  # noqa: F401

POLL = 0.5  # seconds between checks that Snakemake is alive
# Seconds that a job has to save and clean up, before it is killed; SLURM gives as many.
GRACE = 30.0


def end_with_snakemake() -> None:
    """End when Snakemake was killed, or a job of the next run could write the same files."""
    process_id = int(os.environ.get("RIB_SNAKEMAKE", "0"))  # common.smk sets it
    for ancestor in psutil.Process().parents():
        if ancestor.pid == process_id:
            threading.Thread(target=_end_after, args=(ancestor,), daemon=True).start()


def _end_after(snakemake_process: psutil.Process) -> None:
    while snakemake_process.is_running():
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


show_user_errors_as_sentences()
end_with_snakemake()
