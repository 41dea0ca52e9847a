"""How far a grid has come: cells that are done, at work and missing, and the time left at the measured rate. No torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.report import duration

RECORD = "provenance.json"


def status(cells: Mapping[str, Sequence[str]], running: Mapping[str, str], jobs_at_once: int) -> list[str]:
    """Lines for people.

    Args:
        cells: by stage, the record of each of its jobs.
        running: by log file of a job that was started and has not ended, its last line.
        jobs_at_once: how many jobs run at a time, for the time left.
    """
    lines, left, guessed = [], 0.0, True
    width = max(map(len, cells))
    for stage, records in cells.items():
        seconds = [took for path in records if (took := _seconds(Path(path))) is not None]
        missing = len(records) - len(seconds)
        rate = f", {duration(sum(seconds) / len(seconds))} each" if seconds else ""
        lines.append(f"{stage:<{width}}  {len(seconds):>6} done  {missing:>6} missing{rate}")
        if missing and not seconds:
            guessed = False
        elif seconds:
            left += missing * sum(seconds) / len(seconds)
    lines.append(f"begun and not ended: {len(running)} job{'' if len(running) == 1 else 's'}")
    lines += [f"  {last}" for _, last in sorted(running.items())]
    if left or not guessed:
        unknown = "" if guessed else ", not counting stages of which no job has ended yet"
        lines.append(f"time left: about {duration(left / jobs_at_once)} with {jobs_at_once} jobs at once{unknown}")
    else:
        lines.append("nothing is missing")
    return lines


def _seconds(record: Path) -> float | None:
    """What a job took, None if it has not ended."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, KeyError):
        return None


def at_work(own: str, folder: Path = Path("work")) -> dict[str, str]:
    """By log file, the last line of each job that has a private folder: it runs, or was killed and can go on.

    Args:
        own: log file of the job that asks.
        folder: of the private folders.
    """
    logs = [mark.read_text(encoding="utf-8") for mark in sorted(folder.glob("*/job"))]
    return {log: _last_line(Path(log)) for log in logs if log != own}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return f"{log}: {lines[-1]}" if lines else str(log)
