"""Progress of a grid: finished, running, failed and missing jobs, and the time left. No torch."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from rib.base.progress import duration, print_lines
from rib.base.time_left import TimeLeft, time_left
from rib.config.run import run_of
from rib.jobs.job import begun, reason
from rib.jobs.parent_run import is_held, jobs_of_others
from rib.records import provenance

# Stages in which the time of a job depends on its method.
STAGES_OF_METHODS = {"finetune", "merge", "evaluate"}
LONGEST_MESSAGE = 300  # characters that are shown of the message of a failed job
NOTHING_MISSING = (
    "nothing is missing up to the rows of runs; "
    "`snakemake -n` says whether tables and page are made"
)


def print_status(records: Mapping[str, Sequence[str]], jobs_at_once: int, logs: Path) -> None:
    """Print the progress, see `status`, and jobs that failed, also those of reports.

    Args:
        records: paths of the records of the jobs of each stage.
        jobs_at_once: how many jobs this call would start at once; an active run has its own number.
        logs: folder with the logs of reports.
    """
    running = at_work()
    lines = status(records, running, jobs_of_others() or jobs_at_once)
    log_files = []
    for records_of_stage in records.values():
        for record in records_of_stage:
            if not Path(record).is_file():
                log_files.append(log_of(record))
    log_files += map(str, sorted(logs.glob("*.log")))
    log_files += map(str, sorted(logs.glob("figures/*.log")))
    logs_of_ended_jobs = [log for log in dict.fromkeys(log_files) if log not in running]
    failures = _failures(logs_of_ended_jobs)
    print_lines(*lines, f"failed: {_jobs(len(failures))}", *failures)


def _failures(log_files: Iterable[str]) -> list[str]:
    """A line for each log that ends with an error."""
    lines = []
    for log_file in log_files:
        message = reason(Path(log_file))
        if message:
            first_line = message.splitlines()[0]
            lines.append(f"  {log_file}: {first_line[:LONGEST_MESSAGE]}")
    return lines


def log_of(record: str) -> str:
    """The log of a job with a record; results/ and logs/ have the same folders.

    That of results/emoji/models/net/provenance.json is logs/emoji/models/net.log, and that of
    data/raw/noto/images.zip.provenance.json is logs/download/noto/images.zip.log.
    """
    job = record.removesuffix(provenance.ENDING)[:-1]  # without the dot or slash before the ending
    job = re.sub("^results", "logs", job)
    job = re.sub("^data/raw", "logs/download", job)
    return f"{job}.log"


@dataclass
class StageCounts:
    """How far the jobs of a stage are. A kind is a key of jobs that take about as long."""

    # How long each finished job took, by kind.
    seconds_of_finished: dict[Hashable, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    missing: Counter[Hashable] = field(default_factory=Counter)  # number of jobs by kind
    unreadable_records: list[str] = field(default_factory=list)  # of jobs that count as missing


def status(
    records: Mapping[str, Sequence[str]], running: Mapping[str, str], jobs_at_once: int
) -> list[str]:
    """Text lines about the progress.

    Args:
        records: paths of the records of the jobs of each stage.
        running: last log line of each job that has started but not ended, by log file.
        jobs_at_once: number of jobs that run at a time, for the time left.
    """
    counts_of_stages = {
        stage: _stage_counts(stage, records_of_stage) for stage, records_of_stage in records.items()
    }
    stage_width = max(map(len, records))
    seconds_of_finished: dict[Hashable, list[float]] = {}
    missing: Counter[Hashable] = Counter()
    unreadable_records: list[str] = []
    lines = []
    for stage, counts in counts_of_stages.items():
        lines.append(_line_of_stage(stage.ljust(stage_width), counts))
        seconds_of_finished.update(counts.seconds_of_finished)
        missing.update(counts.missing)
        unreadable_records += counts.unreadable_records
    if unreadable_records:
        lines.append(_sentence_about_unreadable(unreadable_records))
    lines.append(f"started but not ended: {_jobs(len(running))}")
    for _, last_line in sorted(running.items()):
        lines.append(f"  {last_line}")
    if missing:
        estimate = time_left(seconds_of_finished, missing, jobs_at_once)
        lines.append(_sentence_about(estimate, jobs_at_once))
    else:
        lines.append(NOTHING_MISSING)
    return lines


def _stage_counts(stage: str, records: Iterable[str]) -> StageCounts:
    """How far the jobs of a stage are. A job has finished if its record is there and readable.

    Args:
        records: paths of the records of all jobs of the stage.
    """
    counts = StageCounts()
    for path in records:
        kind = (stage, *_kind(stage, path))
        record = provenance.read(Path(path))
        if record:
            counts.seconds_of_finished[kind].append(record["seconds"])
        else:
            counts.missing[kind] += 1
            if Path(path).is_file():
                counts.unreadable_records.append(path)
    return counts


def _line_of_stage(stage: str, counts: StageCounts) -> str:
    """How far a stage is: `finetune       2 done       1 missing, 31 s each`."""
    seconds: list[float] = []
    for seconds_of_kind in counts.seconds_of_finished.values():
        seconds += seconds_of_kind
    line = f"{stage}  {len(seconds):>6} done  {counts.missing.total():>6} missing"
    if seconds:
        line += f", {duration(fmean(seconds))} each"
    return line


def _sentence_about_unreadable(records: Sequence[str]) -> str:
    """What is wrong with the first of the records that can't be read, and what to do about it."""
    first_record = records[0]
    count_of_others = f" and {len(records) - 1} more" if len(records) > 1 else ""
    explanation = provenance.explain_unreadable(Path(first_record))
    return f"counted as missing: {first_record}{count_of_others}: {explanation}"


def _sentence_about(estimate: TimeLeft, jobs_at_once: int) -> str:
    """`time left: about 4 min 08 s with 2 jobs at once`, and how many jobs this does not count."""
    sentence = "time left: unknown"
    if estimate.seconds:
        sentence = (
            f"time left: about {duration(estimate.seconds)} with {_jobs(jobs_at_once)} at once"
        )
    if estimate.jobs_without_estimate:
        uncounted = _jobs(estimate.jobs_without_estimate)
        sentence += f", not counting {uncounted} of kinds that have no finished job yet"
    return sentence


def _jobs(number: int) -> str:
    """A number of jobs: `1 job`, `2 jobs`."""
    return "1 job" if number == 1 else f"{number} jobs"


def _kind(stage: str, record: str) -> tuple[str, ...]:
    """Key of jobs of a stage that take about as long.

    For stages that depend on the method, it is the model, method, size and name of the record: that
    of results/emoji/paper/evaluate/net/noto/ft/all/0/emoji.provenance.json is ("net", "ft", "all",
    "emoji.provenance.json").
    """
    if stage not in STAGES_OF_METHODS:
        return ()
    path = Path(record)
    run = run_of(path)
    return run.model, run.method, run.size, path.name


def at_work() -> dict[str, str]:
    """Last log line, by log file, of each job that is running, or was stopped and can resume."""
    log_files, stale_folders = begun()
    last_lines = {}
    for folder, log_file in log_files.items():
        if folder in stale_folders:
            continue
        last_lines[log_file] = _last_line(Path(log_file))
        if not is_held(folder.with_suffix(".lock")):
            last_lines[log_file] += " (stopped, or on another machine)"
    return last_lines


def _last_line(log_file: Path) -> str:
    """A log's path and last line; the path alone if there is no line."""
    if not log_file.is_file():
        return str(log_file)
    lines = log_file.read_text(encoding="utf-8").splitlines()
    if not lines:
        return str(log_file)
    return f"{log_file}: {lines[-1]}"
