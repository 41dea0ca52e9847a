"""Terminal output of a run: progress, a line per finished job, and messages of failed jobs.

Dry-runs show a line per rule. Calls with --verbose show Snakemake's own output, and its log file
always contains everything.

A logger plugin could not do this: Snakemake gives a plugin messages only, without the jobs to come,
of which the time left is, and without exceptions, whose own sentence stands here in place of a
traceback. It would also have to be installed as a package and chosen by every profile, while
signals and the last lines of a run would still have to be handled here.
"""

import logging
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from run_progress import RunProgress
from run_texts import closing_line, dry_run_table, opening_line
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_internals import call, jobs, scheduler, terminal
from tqdm import tqdm

from rib.base.errors import UserError
from rib.base.progress import print_lines
from rib.base.text import printable_lines
from rib.jobs.job import reason as reason_in_log
from rib.jobs.messages import message_of_os_error
from rib.jobs.parent_run import end_jobs

END_OF_DRY_RUN = "This was a dry-run; with --verbose it lists every job with its files."
INCOMPLETE_HINT = "These files are not finished; --rerun-incomplete makes them again: {}."
NO_REASON = "it ended without a message; it may have been killed or run out of memory"
STOPPED = "Stopped. Finished results are kept; run the same command again to continue."


class Console(logging.Formatter):
    """Replaces Snakemake's filter and formatter of the terminal.

    It does nothing in jobs, and if the user has a logger plugin that writes to the terminal.

    Attributes:
        last_line: what a rule says at the end of a run, in place of what was made.
    """

    def __init__(self, workflow):
        super().__init__()
        self.last_line = ""
        self._workflow = workflow
        self._progress: RunProgress | None = None  # since the jobs are known
        # If the last job to fail ran alone, its own message was printed last.
        self._last_failure_was_alone = False
        self._is_stopped = False
        self._has_ended = False  # from here on, only errors are shown
        self._has_shown_table = False  # of a dry-run
        terminal.escape_what_streams_lack()
        self._handler = None
        if call.is_main_process(workflow):
            self._handler = terminal.handler_of_terminal()
        if self._handler:
            self._snakemakes_formatter = self._handler.formatter
            self._snakemakes_filters = list(self._handler.filters)
            self._handler.setFormatter(self)
            self._handler.filters[:] = [self]

    def follow(self) -> None:
        """Handle signals when the run starts, and print messages when it ends."""
        self._workflow.onstart(lambda log: self._handle_signals())
        if self._handler:
            self._workflow.onsuccess(lambda log: self._succeed())
            self._workflow.onerror(lambda log: self._fail())

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a message of Snakemake; also updates the progress."""
        if record.levelno >= logging.ERROR:
            return True  # also with --quiet
        if not all(own_filter.filter(record) for own_filter in self._snakemakes_filters):
            return False
        if call.is_verbose(self._workflow) or record.levelno >= logging.WARNING:
            return True
        event = terminal.event_of(record)
        text = terminal.text_of(record)
        if call.is_dry_run(self._workflow) and text.startswith(terminal.ABOUT_LIST_OF_JOBS):
            return False
        if event == LogEvent.JOB_INFO and self._progress:
            self._progress.start(record.jobid)
        if event == LogEvent.JOB_FINISHED:
            return self._progress is not None
        if text.startswith(terminal.CHATTER):
            return False
        if text.startswith(terminal.END_OF_CALL) and not self._progress:
            return False
        return event in terminal.SHOWN_EVENTS

    def format(self, record: logging.LogRecord) -> str:
        """What the terminal shows of a message; above the bar, if there is one."""
        text = self._text(record)
        if text and self._progress and not self._progress.bar.disable:
            tqdm.write(text, file=sys.stderr)
            return ""  # not written by the handler
        return text

    def _text(self, record: logging.LogRecord) -> str:
        """What the terminal shows of a message; empty if nothing."""
        event = terminal.event_of(record)
        if call.is_dry_run(self._workflow):
            text_of_dry_run = self._text_of_dry_run(record)
            if text_of_dry_run is not None:
                return text_of_dry_run
        elif event == LogEvent.RUN_INFO:
            return self._begin()
        if event == LogEvent.JOB_FINISHED and self._progress:
            return self._progress.finish(record.job_id)
        if event in terminal.JOB_FAILURES:
            self._last_failure_was_alone = scheduler.running_jobs(self._workflow) <= 1
            if event == LogEvent.JOB_ERROR and self._progress:
                self._progress.fail(record.jobid)
        if terminal.text_of(record).startswith(terminal.PROVENANCE_ADVICE):
            return ""
        unfinished_files = terminal.incomplete_files(record)
        if unfinished_files:
            return INCOMPLETE_HINT.format(", ".join(unfinished_files))
        if self._has_ended or terminal.is_about_failed_job(record):
            return ""
        if terminal.is_exception(record):
            sentence = _sentence_of(sys.exc_info()[1])
            if sentence:
                return sentence
        return printable_lines(self._snakemakes_formatter.format(record))

    def _text_of_dry_run(self, record: logging.LogRecord) -> str | None:
        """What a dry-run shows of a message about all of its jobs; None of another message.

        With --verbose it is None for all messages, since these are shown as Snakemake writes them.
        """
        if call.is_verbose(self._workflow):
            return None
        if terminal.event_of(record) == LogEvent.RUN_INFO:
            return self._table(record.stats)
        if terminal.text_of(record).startswith(terminal.END_OF_DRY_RUN):
            return END_OF_DRY_RUN
        return None

    def _begin(self) -> str:
        """Begin to show progress and return the first line.

        It is empty, and there is no progress, for calls such as `plan`, which print their own.
        """
        jobs_to_run = jobs.jobs_to_run(self._workflow)
        if not any(job.outputs for job in jobs_to_run):
            return ""
        self._progress = RunProgress(jobs_to_run)
        return opening_line(jobs_to_run)

    def _table(self, jobs_by_rule: Mapping[str, int]) -> str:
        """Table of the jobs of a dry-run; empty the second time that Snakemake tells them."""
        if self._has_shown_table:
            return ""
        self._has_shown_table = True
        return dry_run_table(jobs_by_rule, jobs.reasons_by_rule(self._workflow))

    def _succeed(self) -> None:
        """Print what a run has made."""
        if self._progress is None:
            return
        self._progress.bar.close()
        if call.only_renews_times(self._workflow):
            return
        outputs = []
        for job in self._progress.jobs.values():
            outputs.extend(job.outputs)
        print_lines(self.last_line or closing_line(outputs))

    def _fail(self) -> None:
        """Print the final messages of a run that was stopped or failed."""
        if self._progress:
            self._progress.bar.close()
        self._has_ended = True
        if self._is_stopped:
            print_lines(STOPPED, file=sys.stderr)
            return
        reasons = {}
        for job in jobs.failed_jobs(self._workflow):
            if job.log_file:
                reasons[str(job)] = reason_in_log(Path(job.log_file))
        if self._was_told_last(reasons):
            return
        for job_name, reason in sorted(reasons.items()):
            print_lines(f"{job_name}: {reason or NO_REASON}", file=sys.stderr)

    def _was_told_last(self, reasons: Mapping[str, str | None]) -> bool:
        """Whether the last line on the terminal is the message of the one job that failed.

        Jobs on this machine print their messages themselves. `reasons` are those in the logs of
        failed jobs.
        """
        return (
            len(reasons) == 1
            and all(reasons.values())
            and self._last_failure_was_alone
            and call.runs_jobs_here(self._workflow)
            and not call.goes_on_after_a_failure(self._workflow)
        )

    def _handle_signals(self) -> None:
        """Let SIGINT end the running jobs and SIGTERM wait for them.

        Jobs that finish meanwhile count as finished. A SIGINT after the first changes nothing: it
        would interrupt the clean-up.

        Snakemake itself also waits after a SIGINT, but forgets jobs that finish meanwhile. On a
        cluster, and if no job runs, Snakemake's own handling is kept: it cancels the submitted
        jobs.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        if call.runs_jobs_here(self._workflow):
            scheduler.block_interrupts_in_jobs(self._workflow)

    def _stop(self, number: int, frame) -> None:
        """Handle a signal, SIGINT or SIGTERM; see `_handle_signals`."""
        if self._has_ended:  # Ctrl-C came before, and all ends as fast as it can
            return
        is_interrupt = number == signal.SIGINT
        self._is_stopped = True
        self._has_ended = is_interrupt
        # In a thread, since this thread may already hold the scheduler's lock.
        stop_jobs = self._end_running_jobs if is_interrupt else self._wait_for_running_jobs
        threading.Thread(target=stop_jobs).start()
        if not is_interrupt:
            return
        has_jobs_here = call.runs_jobs_here(self._workflow) and scheduler.running_jobs(
            self._workflow
        )
        if not has_jobs_here:
            raise KeyboardInterrupt

    def _wait_for_running_jobs(self) -> None:
        """Start no more jobs; Snakemake ends when the running ones have ended."""
        scheduler.start_no_more_jobs(self._workflow)

    def _end_running_jobs(self) -> None:
        """Start no more jobs, and end those that are running."""
        scheduler.start_no_more_jobs(self._workflow)
        print_lines("Stopping the running jobs.", file=sys.stderr)
        end_jobs(lambda: scheduler.running_jobs(self._workflow))


def _sentence_of(error: BaseException | None) -> str:
    """What to tell of an exception in place of a traceback; empty if users do not cause it.

    This is the message of the first UserError in the chain of its causes, or else about a path that
    cannot be written.
    """
    sentence_about_path = ""
    while error is not None:
        if isinstance(error, UserError):
            return str(error)
        if not sentence_about_path:
            sentence_about_path = message_of_os_error(error) or ""
        error = error.__cause__ or error.__context__  # what it was raised from, if anything
    return sentence_about_path
