"""Terminal output of a run: progress, one line per finished job, and finally the error messages of failed jobs.

Dry-runs show a line per rule. Calls with --verbose show Snakemake's own output, and its log file
always contains everything. A logger plugin does not help: snakemake-logger-plugin-rich 0.5 shows
remaining time and finished jobs only with all of Snakemake's output, and prints the full logs of
failed jobs.
"""

import logging
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from io import TextIOWrapper
from os.path import commonpath
from pathlib import Path
from statistics import fmean

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from rib.base.errors import UserError
from rib.base.progress import duration, print_lines
from rib.base.text import printable_lines
from rib.jobs.job import reason
from rib.jobs.messages import message_of_os_error
from rib.jobs.parent_run import end_jobs
from rib.records import provenance

FAILED = {LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR}
SHOWN = {
    None,
    LogEvent.RUN_INFO,
    LogEvent.SHELLCMD,
    LogEvent.DEBUG_DAG,
}  # and, during a run, finished jobs
# Messages that are not shown.
CHATTER = (
    "Assuming",
    "Building DAG",
    "Using shell",
    "Conda env",
    "Group jobs",
    "Select jobs",
    "Loading script",
)
ENDING = ("Complete log", "Elapsed time")
# Other output about failed jobs: the command and traceback of each, its settings and its log.
COMMAND = "CalledProcessError"
AFTER_FAILURE = ("Exiting because a job execution failed", "Shutting down")
BAR = "{n_fmt}/{total_fmt} jobs |{bar}| {elapsed}{postfix}"
# Endings of files beside results, which are not counted as made.
BESIDE_RESULTS = (provenance.ENDING, "manifest.json")
# What Snakemake says at the end of a dry-run about the list of jobs, which is not shown.
ABOUT_LIST = ("Reasons:", "Rules with provenance triggered jobs")
END_OF_DRY_RUN = "This was a dry-run"
SHORT_END = "This was a dry-run; with --verbose it lists every job with its files."
# Texts in which Snakemake advises to wipe the metadata of files, and what is said instead: it would
# keep results that nobody compared.
PROVENANCE_HINT = "Some jobs were triggered by provenance information"
ACCEPT_HINT = (
    "If only code changed, and no result with it, `snakemake accept` checks a sample and keeps all."
)
INCOMPLETE_FILES = "Incomplete files:\n"
INCOMPLETE_HINT = "These files are not finished; --rerun-incomplete makes them again: {}."
CHANGED = "settings or code changed"
# Snakemake's reasons to run a job, the first that applies counts; and the words for them in the table
# of a dry-run.
REASONS = {
    "forced": "forced",
    "output files have to be generated": "not made yet",
    "incomplete output files": "not finished",
    "params have changed since last execution": CHANGED,
    "code has changed since last execution": CHANGED,
    "set of input files has changed since last execution": "has other inputs",
    "updated input files": "an input is newer",
    "input files updated by another job": "an input is made again",
}
NAMED_FILES = 3  # more files of a folder are counted


class Progress:
    """Progress of a run's jobs, drawn as a bar in a terminal."""

    def __init__(self, jobs):
        self.jobs = {job.jobid: job for job in jobs}
        self.left = Counter(_kind(job) for job in self.jobs.values() if not job.rule.norun)
        self.took: dict[tuple, list[float]] = defaultdict(list)
        self.started: dict[int, float] = {}
        self.failed = self.most = 0
        self.bar = tqdm(total=len(self.jobs), unit="job", leave=False, bar_format=BAR, disable=None)

    def start(self, number: int) -> None:
        self.started[number] = time.monotonic()
        self.most = max(self.most, len(self.started))
        self.bar.set_postfix_str(self.state())

    def fail(self, number: int) -> None:
        self.started.pop(number, None)
        self.failed += 1
        self.bar.set_postfix_str(self.state())

    def finish(self, number: int) -> str:
        """Count a finished job and return a line about it; empty for a job without commands."""
        seconds, job = (
            time.monotonic() - self.started.pop(number, time.monotonic()),
            self.jobs.get(number),
        )
        self.bar.n += 1
        if job is None or job.rule.norun:
            return ""
        self.left[_kind(job)] -= 1
        self.took[_kind(job)].append(seconds)
        self.bar.set_postfix_str(self.state())
        line = f"[{self.bar.n}/{len(self.jobs)}] {_named(job)}: {seconds:.0f} s"
        return f"{line}; {self.state()}" if self.bar.disable else line

    def state(self) -> str:
        """Running and failed jobs, and remaining time of the kinds of jobs that have a finished job."""
        known = {
            kind: n * fmean(self.took[kind])
            for kind, n in self.left.items()
            if n and kind in self.took
        }
        seconds = sum(known.values()) / max(1, self.most)
        unknown = sum(number for kind, number in self.left.items() if kind not in known)
        failed = f", {self.failed} failed" if self.failed else ""
        time_left = (
            f"{'at least' if unknown else 'about'} {duration(seconds)} left"
            if seconds
            else "time left unknown"
        )
        return f"{len(self.started)} running{failed}{f', {time_left}' if known or unknown else ''}"


def _kind(job) -> tuple:
    """Key of jobs that take about as long."""
    wildcards = job.wildcards_dict
    return (
        job.rule.name,
        wildcards.get("model"),
        wildcards.get("method"),
        wildcards.get("evaluation_group"),
    )


def _named(job) -> str:
    return f"{job.rule.name} {'/'.join(job.wildcards)}".rstrip()


def closing_line(outputs: Iterable[str]) -> str:
    """Where to look after a run: files by name, or many files of a folder as their number.

    Args:
        outputs: of the jobs that ran, at least one.
    """
    paths = sorted(set(outputs))
    results = [path for path in paths if not path.endswith(BESIDE_RESULTS)] or paths
    by_place = defaultdict(list)
    for path in results:
        by_place[_place(path)].append(path)
    named = []
    for _, files in sorted(by_place.items()):
        if len(files) > NAMED_FILES:
            named.append(f"{len(files)} files in {commonpath(files)}/")
        else:
            named.extend(files)
    return f"Made: {', '.join(named)}."


def _place(path: str) -> tuple[int, str]:
    """Position and name of the place where the closing line counts a file.

    Places are in the order of the stages. Reports are counted by folder: tables, figures and the
    page. Other files are counted together.
    """
    roots = provenance.MADE
    root = next((root for root in roots if path.startswith(root)), None)
    if root is None:
        return len(roots), str(Path(path).parent)
    is_report = root == roots[-1]
    return roots.index(root), str(Path(path).parent) if is_report else root


def dry_run_table(counts: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]) -> str:
    """Table of the jobs of a dry-run, a line per rule.

    Args:
        counts: jobs by rule, the last entry their total, as Snakemake counts them.
        reasons: jobs by reason, by rule.
    """
    rows = [("job", "count", "reason")]
    for rule, count in counts.items():
        jobs_by_reason = reasons.get(rule, {})
        if len(jobs_by_reason) == 1:
            why = next(iter(jobs_by_reason))
        else:
            why = ", ".join(f"{number} {reason}" for reason, number in jobs_by_reason.items())
        rows.append((rule, str(count), why))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [f"{rule:<{widths[0]}}  {count:>{widths[1]}}  {why}" for rule, count, why in rows]
    return "\n".join(line.rstrip() for line in lines)


def reason_to_run(names: Iterable[str]) -> str | None:
    """The reason of a job for the table of a dry-run, from Snakemake's names; None if it has none."""
    given = set(names)
    return next((short for name, short in REASONS.items() if name in given), None)


class Console(logging.Formatter):
    """Replaces Snakemake's filter and formatter of the terminal, except in jobs and if the user has a logger plugin."""

    def __init__(self, workflow):
        super().__init__()
        self.workflow = workflow
        self.progress: Progress | None = None
        self.made = ""  # closing line of a rule's own, in place of closing_line
        self.said_last = (
            False  # whether the last job to fail ran alone, so that its message was printed last
        )
        self.stopped = self.over = False
        self.has_table = False  # whether the table of a dry-run was shown
        _escape_what_streams_lack()
        shown = workflow.is_main_process
        self.handler = next(
            (each for each in logger.handlers if shown and each.name == "DefaultStreamHandler"),
            None,
        )
        if self.handler:
            self.usual, self.filters = self.handler.formatter, self.handler.filters[:]
            self.handler.setFormatter(self)
            self.handler.filters[:] = [self]

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record; also updates the progress."""
        if record.levelno >= logging.ERROR:
            return True  # also with --quiet
        if not all(each.filter(record) for each in self.filters):
            return False
        if self.workflow.output_settings.verbose or record.levelno >= logging.WARNING:
            return True
        if self.workflow.dryrun and str(record.msg).startswith(ABOUT_LIST):
            return False
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO and self.progress:
            self.progress.start(record.jobid)
        if event == LogEvent.JOB_FINISHED:
            return self.progress is not None
        return event in SHOWN and not str(record.msg).startswith(
            CHATTER if self.progress else CHATTER + ENDING
        )

    def format(self, record: logging.LogRecord) -> str:
        text = self._text(record)
        if text and self.progress and not self.progress.bar.disable:
            tqdm.write(text, file=sys.stderr)
            return ""  # not written by the handler
        return text

    def _text(self, record: logging.LogRecord) -> str:
        event, error = getattr(record, "event", None), getattr(record, "exception", None)
        if self.workflow.dryrun and not self.workflow.output_settings.verbose:
            if event == LogEvent.RUN_INFO:
                return self._table(record.stats)
            if str(record.msg).startswith(END_OF_DRY_RUN):
                return SHORT_END
        if not self.workflow.dryrun and event == LogEvent.RUN_INFO:
            jobs = list(self.workflow.dag.needrun_jobs())
            if not any(
                job.output for job in jobs
            ):  # status, plan and verify print their own output
                return ""
            self.progress = Progress(jobs)
            counts = Counter(job.rule.name for job in jobs if not job.rule.norun)
            return f"{sum(counts.values())} jobs: {', '.join(f'{n} {rule}' for rule, n in counts.items())}"
        if event == LogEvent.JOB_FINISHED and self.progress:
            return self.progress.finish(record.job_id)
        if event in FAILED:
            self.said_last = len(self.workflow.scheduler.running) <= 1
            if self.progress and event == LogEvent.JOB_ERROR:
                self.progress.fail(record.jobid)
        text = str(record.msg)
        if text.startswith(PROVENANCE_HINT):
            changed = any(CHANGED in of_rule for of_rule in self._reasons().values())
            return ACCEPT_HINT if changed else ""
        if INCOMPLETE_FILES in text:
            return INCOMPLETE_HINT.format(", ".join(text.partition(INCOMPLETE_FILES)[2].split()))
        of_job = (
            event in FAILED
            or (error == "RuleException" and COMMAND in text)
            or text.startswith(AFTER_FAILURE)
        )
        if self.over or of_job:
            return ""
        sentence = error and _sentence_of(sys.exc_info()[1])
        return sentence or printable_lines(self.usual.format(record))

    def _table(self, counts: Mapping[str, int]) -> str:
        """Table of the jobs of a dry-run; empty if it was shown: Snakemake tells the numbers twice."""
        if self.has_table:
            return ""
        self.has_table = True
        return dry_run_table(counts, self._reasons())

    def _reasons(self) -> Mapping[str, Mapping[str, int]]:
        """Jobs that a dry-run would run, by reason, by rule."""
        dag = self.workflow.dag
        reasons: dict[str, Counter] = defaultdict(Counter)
        for job in dag.needrun_jobs(exclude_finished=False):
            reason = reason_to_run(dag.reason(job).get_names())
            if reason and not job.rule.norun:
                reasons[job.rule.name][reason] += 1
        return reasons

    def follow(self) -> None:
        """Handle signals when the run starts, and print messages when it ends."""
        self.workflow.onstart(lambda log: self._handle_signals())
        if self.handler:
            self.workflow.onsuccess(lambda log: self._succeed())
            self.workflow.onerror(lambda log: self._fail())

    def _succeed(self) -> None:
        if self.progress:
            self.progress.bar.close()
            if not self.workflow.touch:  # which only renews times
                outputs = [path for job in self.progress.jobs.values() for path in job.output]
                print_lines(self.made or closing_line(outputs))

    def _fail(self) -> None:
        """Print the final messages of a run that was stopped or failed."""
        if self.progress:
            self.progress.bar.close()
        self.over = True
        if self.stopped:
            words = "Stopped. Finished results are kept; run the same command again to continue."
            print_lines(words, file=sys.stderr)
            return
        jobs = [
            job
            for failed in self.workflow.scheduler.failed
            for job in (failed if failed.is_group() else [failed])
        ]
        said = {_named(job): reason(Path(job.log[0])) for job in jobs if job.log}
        alone = (
            len(said) == 1
            and self.workflow.local_exec
            and not self.workflow.execution_settings.keep_going
        )
        if not (alone and self.said_last and all(said.values())):
            for job, sentence in sorted(said.items()):
                sentence = (
                    sentence
                    or "it ended without a message; it may have been killed or run out of memory"
                )
                print_lines(f"{job}: {sentence}", file=sys.stderr)

    def _handle_signals(self) -> None:
        """Let SIGINT end the running jobs and SIGTERM wait for them; jobs that finish meanwhile count as finished.

        A SIGINT after the first changes nothing: it would interrupt the clean-up.

        Snakemake itself also waits after a SIGINT, but forgets jobs that finish meanwhile. The SIGINT that Ctrl-C sends
        to every process of a terminal is blocked in jobs, since it may arrive before they can handle it. On a cluster,
        and if no job runs, Snakemake's own handling is kept: it cancels the submitted jobs.
        """
        scheduler, local = self.workflow.scheduler, self.workflow.local_exec

        def stop(number, _):
            if self.over:  # Ctrl-C came before, and all ends as fast as it can
                return
            self.stopped, self.over = True, number == signal.SIGINT
            # In a thread, since this thread may already hold the lock.
            threading.Thread(target=_stop, args=(scheduler, number == signal.SIGINT)).start()
            if number == signal.SIGINT and not (local and scheduler.running):
                raise KeyboardInterrupt

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if local and hasattr(scheduler._executor, "pool"):  # --touch has none
            # Processes inherit the blocked signals of the thread that starts them.
            scheduler._executor.pool._initializer = partial(
                signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT}
            )


def _escape_what_streams_lack() -> None:
    """Let Snakemake show and log any text: characters that a stream's encoding lacks, such as ASCII, are escaped."""
    streams = [sys.stdout, *(getattr(handler, "stream", None) for handler in logger.handlers)]
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _sentence_of(error: BaseException | None) -> str:
    """Message of the first UserError in the chain of an error, or about a path that cannot be written; or nothing."""
    of_paths = ""
    while error is not None and not isinstance(error, UserError):
        of_paths = of_paths or message_of_os_error(error) or ""
        error = error.__cause__ or error.__context__
    return str(error or of_paths)


def _stop(scheduler, now: bool) -> None:
    scheduler.exit_gracefully()
    if now:
        print_lines("Stopping the running jobs.", file=sys.stderr)
        end_jobs(lambda: scheduler.running)
