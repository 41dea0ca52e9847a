"""How far a grid has come: cells that are done, at work and missing, and the time left, by what jobs of each kind took. No torch."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean

from rib.job import begun
from rib.report import duration

OF_METHODS = {"finetune", "merge", "evaluate"}  # stages of which a job takes as long as its method


def status(cells: Mapping[str, Sequence[str]], running: Mapping[str, str], jobs_at_once: int) -> list[str]:
    """Lines for people.

    Args:
        cells: by stage, the record of each of its jobs.
        running: by log file of a job that was started and has not ended, its last line.
        jobs_at_once: how many jobs run at a time, for the time left.
    """
    lines, left, unknown = [], 0.0, 0
    width = max(map(len, cells))
    for stage, records in cells.items():
        took, missing = {}, []
        for path in records:
            if (seconds := _seconds(Path(path))) is None:
                missing.append(_kind(stage, path))
            else:
                took.setdefault(_kind(stage, path), []).append(seconds)
        all_took = [*chain.from_iterable(took.values())]
        rate = f", {duration(fmean(all_took))} each" if all_took else ""
        lines.append(f"{stage:<{width}}  {len(all_took):>6} done  {len(missing):>6} missing{rate}")
        left += sum(fmean(took[kind]) for kind in missing if kind in took)
        unknown += sum(kind not in took for kind in missing)
    lines.append(f"begun and not ended: {_jobs(len(running))}")
    lines += [f"  {last}" for _, last in sorted(running.items())]
    if left or unknown:
        about = f"about {duration(left / jobs_at_once)} with {_jobs(jobs_at_once)} at once" if left else "not known"
        more = f", not counting {_jobs(unknown)} of kinds of which none has ended yet" if unknown else ""
        lines.append(f"time left: {about}{more}")
    else:
        lines.append("nothing is missing")
    return lines


def _jobs(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


def _kind(stage: str, record: str) -> tuple[str, ...]:
    """What jobs that take about as long have in common: the stage; of a method's jobs also model, method, size and suite."""
    if stage not in OF_METHODS:
        return ()
    model, _, method, size, _, name = Path(record).parts[-6:]
    return model, method, size, name


def _seconds(record: Path) -> float | None:
    """What a job took, None if it has not ended."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, KeyError):
        return None


def at_work(own: str) -> dict[str, str]:
    """By log file, the last line of each job that was begun and has not ended: it runs, or was stopped and can go on.

    Args:
        own: log file of the job that asks.
    """
    logs, over = begun()
    return {log: _last_line(Path(log)) for folder, log in logs.items() if folder not in over and log != own}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return f"{log}: {lines[-1]}" if lines else str(log)
