"""What a run says on the terminal: errors, whatever --quiet says; of a failed job its own sentence, last. Snakemake's log has more."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from rib.io import UserError
from rib.job import reason
from rib.owner import end_jobs

TERMINAL = "DefaultStreamHandler"
# What Snakemake says of a failed job besides: its command and traceback, all of its settings, all of its log.
OF_JOBS = {LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR}
COMMAND = "CalledProcessError"
NO_NEWS = ("Exiting because a job execution failed", "Shutting down")


class Messages(logging.Formatter):
    """Formatter of the terminal's handler, in place of the usual one.

    Args:
        workflow: Snakemake's.
        usual: what formats the rest.
    """

    def __init__(self, workflow, usual: logging.Formatter):
        super().__init__()
        self.workflow, self.usual = workflow, usual
        self.said_last = False  # whether a job that failed by itself had the last word
        self.stopped = self.over = False

    def format(self, record: logging.LogRecord) -> str:
        event, error = getattr(record, "event", None), getattr(record, "exception", None)
        if event in OF_JOBS:
            self.said_last = len(self.workflow.scheduler.running) <= 1
        text = str(record.msg)
        of_job = event in OF_JOBS or (error == "RuleException" and COMMAND in text) or text.startswith(NO_NEWS)
        if self.over or of_job:
            return ""  # which the handler leaves out
        if error and (sentence := next(_sentences(sys.exc_info()[1]), None)):
            return sentence
        return self.usual.format(record)

    def end(self) -> None:
        """Have the last word of a run that did not come to its end."""
        self.over = True
        if self.stopped:
            print("Stopped. What was finished is kept; the same call goes on where it was.", file=sys.stderr)
            return
        jobs = [job for failed in self.workflow.scheduler.failed for job in (failed if failed.is_group() else [failed])]
        said = {
            f"{job.rule.name} {'/'.join(job.wildcards)}".rstrip(): reason(Path(job.log[0])) for job in jobs if job.log
        }
        alone = len(said) == 1 and self.workflow.local_exec and not self.workflow.execution_settings.keep_going
        if not (alone and self.said_last and all(said.values())):
            for job, sentence in sorted(said.items()):
                print(
                    f"{job}: {sentence or 'it ended without a word, as after a kill or a lack of memory'}",
                    file=sys.stderr,
                )


def _sentences(error: BaseException | None) -> Iterator[str]:
    """What a UserError says that another error came of."""
    while error is not None:
        if isinstance(error, UserError):
            yield str(error)
        error = error.__cause__ or error.__context__


def speak(workflow) -> Messages | None:
    """Show on the terminal what this module's head says; None where a logger of the user's writes there."""
    handler = next((each for each in logger.handlers if each.name == TERMINAL), None)
    if handler is None:
        return None
    usual = handler.filters[:]
    handler.filters[:] = [lambda record: record.levelno >= logging.ERROR or all(each.filter(record) for each in usual)]
    handler.setFormatter(Messages(workflow, handler.formatter))
    return handler.formatter


def heed_signals(workflow, messages: Messages | None) -> None:
    """Have SIGINT end the jobs that run and SIGTERM wait for them; what has finished by then counts as finished.

    Snakemake waits for its jobs after a SIGINT, too, and forgets those that finish meanwhile. Jobs themselves don't get the
    one that Ctrl-C sends to every process of a terminal, since it may meet them before any of our code runs. On a cluster,
    and where no job runs, Snakemake's way stays: there it takes them back.
    """

    def stop(number, frame):
        if messages:
            messages.stopped, messages.over = True, number == signal.SIGINT
        # In a thread, since this one may hold the lock that it waits for.
        threading.Thread(target=_stop, args=(workflow.scheduler, number == signal.SIGINT)).start()
        if number == signal.SIGINT and not (workflow.local_exec and workflow.scheduler.running):
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if workflow.local_exec:
        # Processes inherit what the thread that starts them blocks.
        workflow.scheduler._executor.pool._initializer = _block_interrupts


def _block_interrupts() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _stop(scheduler, now: bool) -> None:
    scheduler.exit_gracefully()
    if now:
        print("Stopping the jobs that run.", file=sys.stderr)
        end_jobs(lambda: scheduler.running)
