"""Snakemake's output: its handler of the terminal, and how its messages are recognised.

tests/workflow/test_console.py and test_faults.py notice a change of what is used here.
"""

import logging
import sys
from io import TextIOWrapper

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

JOB_FAILURES = {LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR}
# Kinds of messages that the terminal shows. Messages without an event are plain texts.
SHOWN_EVENTS = {None, LogEvent.RUN_INFO, LogEvent.SHELLCMD, LogEvent.DEBUG_DAG}
# Plain texts that the terminal does not show begin with these.
CHATTER = (
    "Assuming",
    "Building DAG",
    "Using shell",
    "Conda env",
    "Group jobs",
    "Select jobs",
    "Loading script",
)
END_OF_CALL = ("Complete log", "Elapsed time")
# Of a dry-run: what refers to its list of jobs, which is not shown; and its last words.
ABOUT_LIST_OF_JOBS = ("Reasons:", "Rules with provenance triggered jobs")
END_OF_DRY_RUN = "This was a dry-run"
# Of a failed job, besides the messages of JOB_FAILURES: the exception of its script, and what
# Snakemake does next.
SCRIPT_EXCEPTION = "RuleException"
SCRIPT_COMMAND_FAILED = "CalledProcessError"
AFTER_FAILURE = ("Exiting because a job execution failed", "Shutting down")
# Texts that advise to delete the metadata of files, so that results would be kept that nobody
# compared.
PROVENANCE_ADVICE = "Some jobs were triggered by provenance information"
INCOMPLETE_FILES = "Incomplete files:\n"


def handler_of_terminal() -> logging.Handler | None:
    """Snakemake's handler of the terminal; None if a logger plugin writes there.

    Snakemake has no documented access to it, so it is found by its name.
    """
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            return handler
    return None


def escape_what_streams_lack() -> None:
    """Escape characters that a stream's encoding lacks, such as ASCII.

    So Snakemake can show and log any text. It does not care for encodings itself.
    """
    streams = [sys.stdout]
    for handler in logger.handlers:
        streams.append(getattr(handler, "stream", None))
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def event_of(record: logging.LogRecord) -> LogEvent | None:
    """The kind of a message; None for a plain text."""
    return getattr(record, "event", None)


def text_of(record: logging.LogRecord) -> str:
    """The text of a message."""
    return str(record.msg)


def is_exception(record: logging.LogRecord) -> bool:
    """Whether a message tells of an exception."""
    return bool(getattr(record, "exception", None))


def is_about_failed_job(record: logging.LogRecord) -> bool:
    """Whether a message is one of several that Snakemake prints about a failed job."""
    if event_of(record) in JOB_FAILURES:
        return True
    text = text_of(record)
    is_of_script = getattr(record, "exception", None) == SCRIPT_EXCEPTION
    if is_of_script and SCRIPT_COMMAND_FAILED in text:
        return True
    return text.startswith(AFTER_FAILURE)


def incomplete_files(record: logging.LogRecord) -> list[str]:
    """Files that a message calls incomplete; none if it is another message."""
    _, _, names = text_of(record).partition(INCOMPLETE_FILES)
    return names.split()
