"""Logging and progress of long tasks."""

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from rib.base.text import printable


def _as_one_line(record: logging.LogRecord) -> bool:
    """A log filter: escape control characters, as messages quote any name; True keeps a record."""
    record.msg = printable(record.getMessage())
    record.args = None  # the message includes them now
    return True


log = logging.getLogger("rib")  # the only logger of the library
# The filter runs before all handlers, including handlers that a user of the library adds.
log.addFilter(_as_one_line)


def log_lines(text: str) -> None:
    """Log a text, such as a traceback, at level DEBUG; one record would be a single line."""
    for line in text.splitlines():
        log.debug("%s", line)


def print_lines(*lines: str, file: TextIO | None = None) -> None:
    """Print texts, each as one line; escape control and unencodable characters.

    The workflow prints with this function only.

    Args:
        file: the stream, standard output by default.
    """
    stream = file or sys.stdout
    encoding = stream.encoding or "utf-8"
    for line in lines:
        encodable = printable(line).encode(encoding, "backslashreplace").decode(encoding)
        try:
            print(encodable, file=stream, flush=True)
        except BrokenPipeError:
            # The reader, such as `head`, has ended. The stream now leads nowhere; otherwise Python
            # would complain about the pipe when it exits.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())


class Progress(tqdm):  # type: ignore[type-arg]  # it takes arguments in its stubs only
    """tqdm's counts, rate and ETA as log lines.

    At most one line every five seconds, and none for short tasks.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        *,
        desc: str,
        total: int | None = None,
        unit: str,
        done_before: int = 0,
    ):
        """Begin to count.

        Args:
            iterable: what the loop runs over; None if `update` is called instead.
            desc: the task, such as `packing images`.
            total: number of units; None if unknown.
            unit: such as `image`.
            done_before: units that an earlier process has done; they don't count in the rate.
        """
        super().__init__(
            iterable,
            desc=desc,
            total=total,
            unit=unit,
            initial=done_before,
            mininterval=5,
            delay=5,
            ascii=True,
            leave=False,
        )

    # tqdm's method returns whether it has written; its stubs say None.
    def display(  # type: ignore[override]
        self, msg: str | None = None, pos: int | None = None
    ) -> bool:
        """Log a line where tqdm would draw its bar; both arguments are ignored."""
        if self.n == self.initial:
            return True  # no rate and no ETA yet
        meter = dict(self.format_dict)
        meter["ncols"] = 0  # no bar, only numbers
        log.info(self.format_meter(**meter))
        return True

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: log lines are not cleared."""


def duration(seconds: float) -> str:
    """Format a duration, such as `2 h 05 min`, `4 min 08 s`, `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    all_minutes, seconds_of_minute = divmod(round(seconds), 60)
    if all_minutes < 60:
        return f"{all_minutes} min {seconds_of_minute:02d} s"
    hours, minutes_of_hour = divmod(all_minutes, 60)
    return f"{hours} h {minutes_of_hour:02d} min"
