"""How far a run is: finished and running jobs, and the time left, drawn as a bar in a terminal."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence

from snakemake_internals.jobs import Job
from tqdm import tqdm

from rib.base.progress import duration
from rib.base.time_left import time_left

BAR = "{n_fmt}/{total_fmt} jobs |{bar}| {elapsed}{postfix}"


class RunProgress:
    """Progress of the jobs of a run.

    Attributes:
        jobs: those that the run consists of, by number.
        bar: shows how many of them have finished; disabled if the output is no terminal.
    """

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = {job.number: job for job in jobs}
        self.bar = tqdm(total=len(jobs), unit="job", leave=False, bar_format=BAR, disable=None)
        self._start_times: dict[int, float] = {}  # of running jobs, by number
        self._most_at_once = 0
        self._failed = 0
        self._seconds_of_finished: dict[tuple, list[float]] = defaultdict(list)  # by kind
        self._remaining = Counter()  # number of jobs by kind
        for job in jobs:
            if not job.only_names_targets:
                self._remaining[_kind(job)] += 1

    def start(self, number: int) -> None:
        """Count a job as running."""
        self._start_times[number] = time.monotonic()
        self._most_at_once = max(self._most_at_once, len(self._start_times))
        self.bar.set_postfix_str(self.state())

    def fail(self, number: int) -> None:
        """Count a job as failed."""
        self._start_times.pop(number, None)
        self._failed += 1
        self.bar.set_postfix_str(self.state())

    def finish(self, number: int) -> str:
        """Count a finished job and return a line about it; empty for a job without commands."""
        now = time.monotonic()
        seconds = now - self._start_times.pop(number, now)
        self.bar.n += 1
        job = self.jobs.get(number)
        if job is None or job.only_names_targets:
            return ""
        self._remaining[_kind(job)] -= 1
        self._seconds_of_finished[_kind(job)].append(seconds)
        self.bar.set_postfix_str(self.state())
        line = f"[{self.bar.n}/{len(self.jobs)}] {job}: {seconds:.0f} s"
        if self.bar.disable:  # nothing else shows the state
            return f"{line}; {self.state()}"
        return line

    def state(self) -> str:
        """Jobs and the time left, such as `2 running, 1 failed, about 4 min 08 s left`."""
        phrases = [f"{len(self._start_times)} running"]
        if self._failed:
            phrases.append(f"{self._failed} failed")
        if self._remaining.total():
            phrases.append(self._time_left())
        return ", ".join(phrases)

    def _time_left(self) -> str:
        """The time that the remaining jobs take: `about 4 min 08 s left`.

        Jobs of a kind of which none has finished are not guessed from others: a linear probe says
        nothing about full fine-tuning. They are counted: `at least 31 s left without 40 jobs of new
        kinds`.
        """
        estimate = time_left(
            self._seconds_of_finished, self._remaining, jobs_at_once=max(1, self._most_at_once)
        )
        if not estimate.seconds:
            return "time left unknown"
        seconds_left = f"{duration(estimate.seconds)} left"
        jobs = estimate.jobs_without_estimate
        if jobs == 1:
            return f"at least {seconds_left} without 1 job of a new kind"
        if jobs:
            return f"at least {seconds_left} without {jobs} jobs of new kinds"
        return f"about {seconds_left}"


def _kind(job: Job) -> tuple[str | None, ...]:
    """Key of jobs that take about as long."""
    return (
        job.rule,
        job.wildcards.get("model"),
        job.wildcards.get("entry", job.wildcards.get("method")),
        job.wildcards.get("group"),
    )
