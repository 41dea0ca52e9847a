"""Logging and progress of long tasks."""

import logging

from tqdm import tqdm

log = logging.getLogger("rib")


class Progress(tqdm):
    """tqdm's counts, rate and ETA as log lines: at most one every few seconds, none for short tasks."""

    def __init__(self, iterable=None, *, desc: str, total: int | None = None, unit: str):
        super().__init__(iterable, desc=desc, total=total, unit=unit, mininterval=5, delay=5, ascii=True, leave=False)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if self.n:
            log.info(self.format_meter(**{**self.format_dict, "ncols": 0}))
        return True

    def clear(self, nolock: bool = False) -> None:
        """Do nothing, because log lines are not cleared."""


def duration(seconds: float) -> str:
    """Format a duration, for example `2 h 05 min`, `4 min 08 s`, `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
