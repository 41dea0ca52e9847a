"""How long the remaining jobs take, estimated from the finished jobs of the same kind."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class TimeLeft:
    """An estimate of the time that the remaining jobs take.

    Attributes:
        seconds: of the jobs of a kind that has a finished job.
        jobs_without_estimate: number of the other remaining jobs, which are not in `seconds`.
    """

    seconds: float
    jobs_without_estimate: int


def time_left(
    seconds_of_finished: Mapping[Hashable, Sequence[float]],
    remaining: Mapping[Hashable, int],
    jobs_at_once: int,
) -> TimeLeft:
    """Estimate how long the remaining jobs take: each as long as the mean of its kind so far.

    Args:
        seconds_of_finished: how long each finished job took, by kind of job.
        remaining: number of jobs that have not finished, by kind of job.
        jobs_at_once: how many jobs run at a time, at least one.
    """
    seconds = 0.0
    jobs_without_estimate = 0
    for kind, number in remaining.items():
        if seconds_of_finished.get(kind):
            seconds += number * fmean(seconds_of_finished[kind])
        else:
            jobs_without_estimate += number
    return TimeLeft(seconds / jobs_at_once, jobs_without_estimate)
