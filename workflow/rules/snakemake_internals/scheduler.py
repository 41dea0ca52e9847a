"""Snakemake's scheduler when a run is stopped.

tests/workflow/test_beside.py, test_faults.py and test_console.py (Ctrl-C again and again) notice a
change of what is used here.
"""

import signal
from functools import partial


def running_jobs(workflow) -> int:
    """How many jobs, or groups of jobs on a cluster, are running (`scheduler.running`)."""
    return len(workflow.scheduler.running)


def start_no_more_jobs(workflow) -> None:
    """Let the scheduler wait for the running jobs and then end (`scheduler.exit_gracefully`).

    It takes the scheduler's lock, so it must not be called in a signal handler, whose thread may
    hold that lock.
    """
    workflow.scheduler.exit_gracefully()


def block_interrupts_in_jobs(workflow) -> None:
    """Block SIGINT in jobs, by the threads that start them (`scheduler._executor.pool`).

    A Ctrl-C reaches every process of a terminal, and a job may get it before it can handle it.
    Processes inherit the blocked signals of the thread that starts them. Snakemake has no setting
    for this.
    """
    pool = getattr(workflow.scheduler._executor, "pool", None)  # --touch has none
    if pool is not None:
        pool._initializer = partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT})
