"""Start of a run: environment variables, locks of killed runs, and adoption of pulled outputs."""

import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from snakemake_internals import call
from snakemake_internals.locks import replace_functions
from snakemake_internals.records import LONG_AGO, SeenRecords, SnakemakeRecords, ended_at

from rib.base.errors import UserError
from rib.base.progress import log, print_lines
from rib.config.grid import Grid
from rib.data import variables
from rib.jobs import fork_server
from rib.jobs.gpu_lock import JOBS_PER_GPU
from rib.jobs.job import sweep
from rib.jobs.parent_run import PARENT_RUN, announce, end_with_parent
from rib.records import provenance

NAMED_FILES = 3  # changed files that are named at the start; the others are counted
# Folders that every run writes to. Snakemake deletes outdated outputs before a job finds that it
# cannot begin.
WRITTEN_FOLDERS = (".", ".snakemake", "logs", "work")
# Targets that only look at results, so that no outputs are adopted for them.
LOOKING_TARGETS = {"preview", "plan", "verify", "pull"}
# Folder of this run's sockets; relative, since a socket's path may have 107 bytes at most.
SOCKETS = Path(f"work/warm-{os.uname().nodename}-{os.getpid()}")


def start_run(workflow, config: Mapping, grid: Grid, is_preview: bool) -> None:
    """Prepare a run, in each of its processes.

    Settings of the machine are passed to jobs in environment variables. The main process also
    checks that the folder is writable and prints notices. Right before the graph is built, it
    registers the run, removes locks of killed runs and adopts pulled outputs. Calls that start no
    jobs, such as dry-runs, treat outputs as adopted.

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
    log.addHandler(logging.StreamHandler())  # shows progress while pulled outputs are checked
    log.setLevel(logging.INFO)
    for notice in grid.notices:
        print_lines(notice, file=sys.stderr)
    os.environ[PARENT_RUN] = str(os.getpid())
    os.environ[fork_server.WARM] = str(SOCKETS) if config["compute"]["warm_start"] else ""
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
    targets = call.targets_of(workflow)
    if targets and targets <= LOOKING_TARGETS:
        return
    if call.starts_jobs(workflow):
        call.lift_rate_limit(workflow)
        _unlock_after_kill()
        sweep()
        records = SnakemakeRecords()
        _adopt_pulled_outputs(records, "Adopted the outputs of {} jobs, which match their records.")
    else:
        records = SeenRecords()
        _adopt_pulled_outputs(
            records, "The outputs of {} jobs match their records; a run adopts them."
        )
        records.apply_to_snakemake()


def _unlock_after_kill() -> None:
    """Register this run; if no other is active, remove what killed runs left.

    These are Snakemake's locks and the fork servers' sockets.
    """
    records = SnakemakeRecords()
    active_runs = announce(records.locked)
    if not active_runs:
        for folder in SOCKETS.parent.glob("warm-*"):
            if folder != SOCKETS:
                shutil.rmtree(folder, ignore_errors=True)
    if not records.locked:
        return
    if active_runs:
        print_lines(
            f"Another run is active in this folder ({'; '.join(active_runs)}). If both would make "
            "the same files, this one stops: wait for the other run, or stop it.",
            file=sys.stderr,
        )
    else:
        records.unlock()
        print_lines("The previous run was killed; continuing where it stopped.", file=sys.stderr)


def _adopt_pulled_outputs(records: SnakemakeRecords, message: str) -> None:
    """Adopt outputs that were pulled with DVC, and warn about files that were changed.

    Of changed files Snakemake says nothing by itself.

    Args:
        records: Snakemake's, in which the outputs are registered.
        message: to print, with `{}` for the number of jobs whose outputs were adopted.

    Raises a UserError if a file does not match the records.
    """
    shared_records = provenance.load()
    pulled = provenance.match(shared_records, records.knows, records.is_unfinished)
    if pulled:
        made_from_others = provenance.made_from_others(shared_records)
        for path, job_record in pulled.items():
            # Outputs made from other inputs get an old time, so that Snakemake compares checksums.
            ended = LONG_AGO if path in made_from_others else ended_at(job_record)
            for output in [*job_record["outputs"], path]:
                records.adopt(output, job_record, ended)
        print_lines(message.format(len(pulled)), file=sys.stderr)
    changed_files = provenance.changed(records.has_other_time, records.is_unfinished)
    if changed_files:
        _warn_of_changed_files(changed_files)


def _warn_of_changed_files(changed_files: Sequence[str]) -> None:
    """Name the first of some files that were changed since they were made, and what to do."""
    named_files = changed_files[:NAMED_FILES]
    names = ", ".join(named_files)
    if len(changed_files) > NAMED_FILES:
        names += f" and {len(changed_files) - NAMED_FILES} more"
    print_lines(
        f"Changed since made: {names}. {provenance.remedy(named_files)} "
        "`snakemake verify` compares all files with their records.",
        file=sys.stderr,
    )
