"""Progress of a grid: finished, running, failed and missing jobs, and the time left. No torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

from rib.base.progress import duration, print_lines
from rib.jobs.job import begun, reason
from rib.jobs.parent_run import is_held, jobs_of_others
from rib.records import provenance

# Stages in which the time of a job depends on its method.
OF_METHODS = {"finetune", "merge", "evaluate"}


def print_status(records: Mapping[str, Sequence[str]], jobs_at_once: int, logs: Path) -> None:
    """Print the progress, see `status`, and jobs that failed, also those of reports.

    Args:
        records: of the jobs of each stage.
        jobs_at_once: how many jobs this call would start at once; a run at work has its own number.
        logs: folder with the logs of reports.
    """
    running = at_work()
    lines = status(records, running, jobs_of_others() or jobs_at_once)
    missing_records = [
        path for path in chain.from_iterable(records.values()) if not Path(path).is_file()
    ]
    logs_of_reports = [*sorted(logs.glob("*.log")), *sorted(logs.glob("figures/*.log"))]
    logs_to_read = [*map(log_of, missing_records), *map(str, logs_of_reports)]
    failures = _failures(log for log in logs_to_read if log not in running)
    print_lines(*lines, f"failed: {_jobs(len(failures))}", *failures)


def _failures(logs: Iterable[str]) -> list[str]:
    """A line for each log, of a job that is not running, whose job failed."""
    lines = {}
    for log in logs:
        message = reason(Path(log))
        if message:
            lines[log] = f"  {log}: {message.splitlines()[0][:300]}"
    return list(lines.values())


def log_of(record: str) -> str:
    """The log of a job with a record; results/ and logs/ have the same folders."""
    job = record.removesuffix(provenance.ENDING)[:-1]  # without the dot or slash before
    job = re.sub("^results", "logs", job)
    job = re.sub("^data/raw", "logs/download", job)
    return f"{job}.log"


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is."""

    seconds: Mapping[tuple[str, ...], list[float]]  # of finished jobs, by kind of job
    missing: list[tuple[str, ...]]  # kind of each job that is not finished

    @property
    def all_seconds(self) -> list[float]:
        """Seconds of all finished jobs."""
        return list(chain.from_iterable(self.seconds.values()))

    @property
    def seconds_left(self) -> float:
        """Of jobs whose kind has a finished job, each as long as the mean of these."""
        return sum(fmean(self.seconds[kind]) for kind in self.missing if kind in self.seconds)

    @property
    def jobs_of_unknown_time(self) -> int:
        """How many missing jobs are of a kind that has no finished job."""
        return sum(kind not in self.seconds for kind in self.missing)


def _progress(stage: str, records: Sequence[str]) -> StageProgress:
    """How far a stage is, from the records that its jobs have or will have."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    missing = []
    for path in records:
        kind = _kind(stage, path)
        record = provenance.read(Path(path))
        if record:
            seconds.setdefault(kind, []).append(record["seconds"])
        else:
            missing.append(kind)
    return StageProgress(seconds, missing)


def status(
    records: Mapping[str, Sequence[str]], running: Mapping[str, str], jobs_at_once: int
) -> list[str]:
    """Text lines about the progress.

    Args:
        records: of the jobs of each stage.
        running: last log line of each job that has started but not ended, by log file.
        jobs_at_once: number of jobs that run at a time, for the remaining time.
    """
    width = max(len(stage) for stage in records)
    lines = []
    seconds_left = 0.0
    jobs_of_unknown_time = 0
    for stage, paths in records.items():
        progress = _progress(stage, paths)
        lines.append(_line_of_stage(f"{stage:<{width}}", progress))
        seconds_left += progress.seconds_left
        jobs_of_unknown_time += progress.jobs_of_unknown_time
    lines.append(f"started but not ended: {_jobs(len(running))}")
    lines += [f"  {last_line}" for _, last_line in sorted(running.items())]
    lines.append(_line_of_time_left(seconds_left, jobs_of_unknown_time, jobs_at_once))
    return lines


def _line_of_stage(stage: str, progress: StageProgress) -> str:
    """How many jobs of a stage are finished, how many are missing, and what one takes."""
    seconds = progress.all_seconds
    rate = f", {duration(fmean(seconds))} each" if seconds else ""
    return f"{stage}  {len(seconds):>6} done  {len(progress.missing):>6} missing{rate}"


def _line_of_time_left(seconds: float, unknown: int, jobs_at_once: int) -> str:
    """The time left.

    Args:
        seconds: of the jobs whose time can be told.
        unknown: number of the other jobs.
        jobs_at_once: number of jobs that run at a time.
    """
    if not seconds and not unknown:
        return (
            "nothing is missing up to the rows of runs; "
            "`snakemake -n` says whether tables and page are made"
        )
    line = "time left: unknown"
    if seconds:
        time = duration(seconds / jobs_at_once)
        line = f"time left: about {time} with {_jobs(jobs_at_once)} at once"
    if unknown:
        line += f", not counting {_jobs(unknown)} of kinds that have no finished job yet"
    return line


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _kind(stage: str, record: str) -> tuple[str, ...]:
    """Key of jobs of a stage that take about as long.

    It is model, method, size and group for stages that depend on the method, and empty for others.
    """
    if stage not in OF_METHODS:
        return ()
    model, _target, method, size, _seed, file = Path(record).parts[-6:]
    return model, method, size, file


def at_work() -> dict[str, str]:
    """Last log line, by log file, of each job that is running, or was stopped and can resume."""
    logs, stale_folders = begun()
    # Of several folders with one log, the last says whether the job runs.
    states = {}
    for folder, log in logs.items():
        is_running = is_held(folder.with_suffix(".lock"))
        states[log] = "" if is_running else " (stopped, or on another machine)"
    lines = {}
    for folder, log in logs.items():
        if folder not in stale_folders:
            lines[log] = _last_line(Path(log)) + states[log]
    return lines


def _last_line(log: Path) -> str:
    """The last line of a log, after its name."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return f"{log}: {lines[-1]}" if lines else str(log)
