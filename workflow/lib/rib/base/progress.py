"""Logging and progress of long tasks."""

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from rib.base.text import printable


def _as_one_line(record: logging.LogRecord) -> bool:
    """Make the message of a log record one printable line, whatever names it quotes.

    This is a filter of a logger. It returns True, so that all records are logged.
    """
    record.msg = printable(record.getMessage())
    record.args = None  # they are in the message now
    return True


log = logging.getLogger("rib")  # the library's only one
log.addFilter(_as_one_line)  # before any handler, also those of a user of the library


def log_lines(text: str) -> None:
    """Log a text of several lines for those who look for a fault: each is a record of its own."""
    for line in text.splitlines():
        log.debug("%s", line)


def print_lines(*lines: str, file: TextIO | None = None) -> None:
    """Print texts, each as one printable line; what the stream's encoding lacks is escaped, too.

    The workflow prints by this function alone.

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
            # Whoever read has ended, such as `head`. What follows goes nowhere, so that Python
            # prints no error about the pipe at its end either.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())


class Progress(tqdm):  # type: ignore[type-arg]  # it takes arguments in its stubs only
    """tqdm's counts, rate and ETA as log lines.

    There is at most one every few seconds, and none for short tasks.
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
            iterable: what is iterated over; None if `update` is called instead.
            desc: what is done, such as `packing photos`.
            total: number of units; None if unknown.
            unit: what is counted, such as `image`.
            done_before: units of an earlier process, which this one goes on from. They count in no
                rate.
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
        """Log count, rate and ETA, where tqdm would draw its bar; both arguments are ignored."""
        if self.n == self.initial:
            return True  # nothing is done yet, so there is no rate and no ETA to log
        meter = dict(self.format_dict)
        meter["ncols"] = 0  # columns of the bar: with none, the line has the numbers only
        log.info(self.format_meter(**meter))
        return True

    def clear(self, nolock: bool = False) -> None:
        """Do nothing, because log lines are not cleared."""


def duration(seconds: float) -> str:
    """Format a duration, for example `2 h 05 min`, `4 min 08 s`, `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    all_minutes, seconds_of_minute = divmod(round(seconds), 60)
    if all_minutes < 60:
        return f"{all_minutes} min {seconds_of_minute:02d} s"
    hours, minutes_of_hour = divmod(all_minutes, 60)
    return f"{hours} h {minutes_of_hour:02d} min"
