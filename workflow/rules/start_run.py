"""Start of a run: environment variables, and locks of killed runs."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from snakemake_internals import call
from snakemake_internals.locks import replace_functions

from rib.base.errors import UserError
from rib.base.progress import print_lines
from rib.config.grid import Grid
from rib.data import variables
from rib.jobs.gpu_lock import JOBS_PER_GPU
from rib.jobs.job import sweep
from rib.jobs.parent_run import PARENT_RUN, announce, end_with_parent

# Folders that every run writes to. Snakemake deletes outdated outputs before a job finds that it
# cannot begin.
WRITTEN_FOLDERS = (".", ".snakemake", "logs", "work")
SNAKEMAKES_LOCKS = Path(".snakemake/locks")


def start_run(workflow, config: Mapping, grid: Grid, is_preview: bool) -> None:
    """Prepare a run, in each of its processes.

    Settings of the machine are passed to jobs in environment variables. The main process also
    checks that the folder is writable and prints notices. Right before the graph of a call that
    starts jobs is built, it registers the run and removes locks of killed runs.

    Args:
        is_preview: whether this process was started by a job of `snakemake preview`, with which it
            ends.

    Raises a UserError if the folder is not writable, or a label space is invalid.
    """
    replace_functions()
    for dataset in grid.datasets_read():  # refuse an invalid class map before any job runs
        grid.catalog.label_space(dataset)
        grid.catalog.icons(dataset)
    os.environ[JOBS_PER_GPU] = str(config["compute"]["jobs_per_gpu"])
    variables.set_from(config)
    if not call.is_main_process(workflow):
        return
    if is_preview:
        end_with_parent()
    _refuse_unwritable_folders()
    for notice in grid.notices:
        print_lines(notice, file=sys.stderr)
    os.environ[PARENT_RUN] = str(os.getpid())
    call.before_graph(workflow, lambda: _begin(workflow))


def _refuse_unwritable_folders() -> None:
    """Raise a UserError if one of the folders that every run writes to is not writable."""
    for folder in WRITTEN_FOLDERS:
        if os.access(folder, os.F_OK) and not os.access(folder, os.W_OK):
            raise UserError(
                f"{Path.cwd() / folder} is not writable; change its permissions, or copy the "
                "project elsewhere."
            )


def _begin(workflow) -> None:
    """Do what has to be done right before the graph is built, see `start_run`."""
    only_looks = call.targets_of(workflow) == {"preview"}
    if call.starts_jobs(workflow) and not only_looks:
        call.lift_rate_limit(workflow)
        _unlock_after_kill()
        sweep()


def _unlock_after_kill() -> None:
    """Register this run; if no other is active, remove Snakemake's locks of killed runs."""
    files_are_locked = any(SNAKEMAKES_LOCKS.glob("*.lock"))
    active_runs = announce(files_are_locked)
    if not files_are_locked:
        return
    if active_runs:
        print_lines(
            f"Another run is active in this folder ({'; '.join(active_runs)}). If both would make "
            "the same files, this one stops: wait for the other run, or stop it.",
            file=sys.stderr,
        )
    else:
        shutil.rmtree(SNAKEMAKES_LOCKS, ignore_errors=True)
        print_lines("The previous run was killed; continuing where it stopped.", file=sys.stderr)
