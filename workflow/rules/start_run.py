"""Start of a run: environment variables, locks of killed runs, and adoption of pulled outputs."""

import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from snakemake_records import LONG_AGO, SeenRecords, SnakemakeRecords, ended_at

from rib.base.errors import UserError
from rib.base.progress import log, print_lines
from rib.config.grid import Grid
from rib.data import variables
from rib.jobs import fork_server
from rib.jobs.gpu_lock import JOBS_PER_GPU
from rib.jobs.job import sweep
from rib.jobs.parent_run import JOBS_AT_ONCE, PARENT_RUN, announce
from rib.records import provenance

NAMED = 3  # changed files that are named at the start; the others are counted
# Folders that every run writes to. Snakemake deletes outdated outputs before a job finds that it cannot begin.
WRITTEN = (".", ".snakemake", "logs", "work")
LOOKS = {
    "status",
    "preview",
    "plan",
    "verify",
    "pull",
    "compare",
}  # targets before which no outputs are adopted
# Folder of this run's sockets; relative, since a socket's path may have 107 bytes at most.
SOCKETS = Path(f"work/warm-{os.uname().nodename}-{os.getpid()}")


def start_run(workflow, config: Mapping, grid: Grid) -> None:
    """Prepare a run, in each of its processes.

    Settings of the machine are passed to jobs in environment variables. The main process also checks that the folder is
    writable and prints notices. Right before the graph is built, it registers the run, removes locks of killed runs and
    adopts pulled outputs. Calls that make no files (dry-runs, `snakemake status`) treat outputs as adopted.

    Raises a UserError if the folder is not writable, or a label space is invalid.
    """
    for dataset in grid.datasets_read():  # refuse an invalid class map before any job runs
        grid.catalog.label_space(dataset)
        grid.catalog.icons(dataset)
    os.environ[JOBS_PER_GPU] = str(config["compute"]["jobs_per_gpu"])
    variables.set_from(config)
    if not workflow.is_main_process:
        return
    for folder in WRITTEN:
        if os.access(folder, os.F_OK) and not os.access(folder, os.W_OK):
            where = Path.cwd() / folder
            raise UserError(
                f"{where} is not writable; change its permissions, or copy the project elsewhere."
            )
    log.addHandler(logging.StreamHandler())  # shows progress while pulled outputs are checked
    log.setLevel(logging.INFO)
    for notice in grid.notices:
        print_lines(notice, file=sys.stderr)
    os.environ[PARENT_RUN] = str(os.getpid())
    os.environ[fork_server.WARM] = str(SOCKETS) if config["compute"]["warm_start"] else ""
    prepare = workflow._prepare_dag

    def start_and_prepare(*arguments, **more):
        workflow._prepare_dag = prepare
        at_once = jobs_at_once(workflow, config["compute"])
        os.environ[JOBS_AT_ONCE] = str(at_once)
        targets = workflow.dag_settings.targets
        if not (targets and LOOKS.issuperset(targets)):
            if workflow.executor_plugin is not None and not workflow.dryrun:
                _lift_rate_limit(workflow.scheduling_settings)
                _unlock_after_kill(at_once)
                sweep()
                _check_results(
                    SnakemakeRecords(), "Adopted the outputs of {} jobs, which match their records."
                )
            else:
                seen = SeenRecords()
                _check_results(
                    seen, "The outputs of {} jobs match their records; a run adopts them."
                )
                seen.show()
        return prepare(*arguments, **more)

    workflow._prepare_dag = start_and_prepare


def jobs_at_once(workflow, compute: Mapping) -> int:
    """How many jobs with networks this call starts at once: as its cores, nodes and GPUs allow.

    Args:
        compute: the section of config.yaml.
    """
    if not workflow.local_exec:
        return workflow.nodes
    at_once = max(1, (workflow._cores or 1) // compute["threads_per_job"])
    gpus = workflow.global_resources.get("gpu")
    if gpus is None or gpus.value is None or compute["device"] == "cpu":
        return at_once
    return max(1, min(at_once, gpus.value))


def _lift_rate_limit(settings) -> None:
    """Remove Snakemake's default limit of 100 jobs per second; a limit by the user is kept.

    With the limit, every finished job adds a timer that checks for ready jobs each second; after 600 jobs the timers
    used half a processor.
    """
    limit = settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        settings.max_jobs_per_timespan = None


def _unlock_after_kill(at_once: int) -> None:
    """Register this run; if no other is active, remove Snakemake's locks and the fork servers' sockets of killed runs."""
    records = SnakemakeRecords()
    alive = announce(records.locked, at_once)
    for folder in () if alive else {*SOCKETS.parent.glob("warm-*")} - {SOCKETS}:
        shutil.rmtree(folder, ignore_errors=True)
    if not records.locked:
        return
    if alive:
        words = f"Another run is active in this folder ({'; '.join(alive)}). If both would make the same files, this "
        words += "one stops: wait for the other run, or stop it."
    else:
        records.unlock()
        words = "The previous run was killed; continuing where it stopped."
    print_lines(words, file=sys.stderr)


def _check_results(records: SnakemakeRecords, words: str) -> None:
    """Adopt outputs that were pulled with DVC, and warn about changed ones, of which Snakemake says nothing.

    `words` tell how many jobs' outputs were adopted. Raises a UserError if a file does not match the records.
    """
    gathered = provenance.load()
    pulled = provenance.match(gathered, records.knows, records.is_unfinished)
    stale = provenance.made_from_others(gathered) if pulled else set()
    for path, record in pulled.items():
        for output in [*record["outputs"], path]:
            # Outputs made from other inputs get an old time, so that Snakemake compares checksums.
            records.adopt(output, record, LONG_AGO if path in stale else ended_at(record))
    if pulled:
        print_lines(words.format(len(pulled)), file=sys.stderr)
    if changed := provenance.changed(records.has_other_time, records.is_unfinished):
        some = changed[:NAMED]
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        print_lines(
            f"Changed since made, or of an earlier version: {', '.join(some)}{more}. {provenance.remedy(some)} "
            "`snakemake verify` compares all files with their records.",
            file=sys.stderr,
        )
