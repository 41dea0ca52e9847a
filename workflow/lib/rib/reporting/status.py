"""Progress of a grid: finished, running, failed and missing jobs, and the estimated remaining time. No torch."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean

from rib.base.progress import duration, print_lines
from rib.jobs.job import begun, reason
from rib.jobs.parent_run import is_held, jobs_of_others
from rib.records import provenance

OF_METHODS = {
    "finetune",
    "merge",
    "evaluate",
}  # stages in which the time of a job depends on its method


def print_status(records: Mapping[str, Sequence[str]], jobs_at_once: int, logs: str) -> None:
    """Print the progress, see `status`, and jobs that failed, also those of reports.

    Args:
        records: of the jobs of each stage.
        jobs_at_once: how many jobs this call would start at once; a run at work has its own number.
        logs: folder with the logs of reports.
    """
    running = at_work()
    jobs_at_once = jobs_of_others() or jobs_at_once
    missing = (
        log_of(path) for path in chain.from_iterable(records.values()) if not Path(path).is_file()
    )
    of_reports = (
        str(path) for place in ("*.log", "figures/*.log") for path in sorted(Path(logs).glob(place))
    )
    said = {log: reason(Path(log)) for log in chain(missing, of_reports) if log not in running}
    failed = [
        f"  {log}: {message.splitlines()[0][:300]}" for log, message in said.items() if message
    ]
    print_lines(*status(records, running, jobs_at_once), f"failed: {_jobs(len(failed))}", *failed)


def log_of(record: str) -> str:
    """The log of a job with a record; results/ and logs/ have the same folders."""
    job = record.removesuffix(provenance.ENDING)[:-1]
    return f"{re.sub('^data/raw', 'logs/download', re.sub('^results', 'logs', job))}.log"


def status(
    cells: Mapping[str, Sequence[str]], running: Mapping[str, str], jobs_at_once: int
) -> list[str]:
    """Text lines about the progress.

    Args:
        cells: records of the jobs of each stage.
        running: last log line of each job that has started but not ended, by log file.
        jobs_at_once: number of jobs that run at a time, for the remaining time.
    """
    lines, left, unknown, width = [], 0.0, 0, max(map(len, cells))
    for stage, records in cells.items():
        took, missing = {}, []
        for path in records:
            if made := provenance.read(Path(path)):
                took.setdefault(_kind(stage, path), []).append(made["seconds"])
            else:
                missing.append(_kind(stage, path))
        all_took = [*chain.from_iterable(took.values())]
        rate = f", {duration(fmean(all_took))} each" if all_took else ""
        lines.append(f"{stage:<{width}}  {len(all_took):>6} done  {len(missing):>6} missing{rate}")
        left += sum(fmean(took[kind]) for kind in missing if kind in took)
        unknown += sum(kind not in took for kind in missing)
    lines.append(f"started but not ended: {_jobs(len(running))}")
    lines += [f"  {last}" for _, last in sorted(running.items())]
    if left or unknown:
        about = (
            f"about {duration(left / jobs_at_once)} with {_jobs(jobs_at_once)} at once"
            if left
            else "unknown"
        )
        more = (
            f", not counting {_jobs(unknown)} of kinds that have no finished job yet"
            if unknown
            else ""
        )
        lines.append(f"time left: {about}{more}")
    else:
        lines.append(
            "nothing is missing up to the rows of runs; `snakemake -n` says whether tables and page are made"
        )
    return lines


def _jobs(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


def _kind(stage: str, record: str) -> tuple[str, ...]:
    """Key of jobs that take about as long: for stages that depend on the method its model, method, size and group."""
    if stage not in OF_METHODS:
        return ()
    model, _, method, size, _, name = Path(record).parts[-6:]
    return model, method, size, name


def at_work() -> dict[str, str]:
    """Last log line, by log file, of each job that is running, or was stopped and can resume."""
    logs, over = begun()
    stopped = {
        log: "" if is_held(it.with_suffix(".lock")) else " (stopped, or on another machine)"
        for it, log in logs.items()
    }
    return {
        log: _last_line(Path(log)) + stopped[log]
        for folder, log in logs.items()
        if folder not in over
    }


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return f"{log}: {lines[-1]}" if lines else str(log)
