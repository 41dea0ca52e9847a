"""A command, killed at random moments with all its processes.

It is called again as often as it takes.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tiny.projects.project import Project
from tiny.projects.waiting import wait_until


@dataclass(frozen=True)
class Completed:
    """A run that came through.

    Attributes:
        kills: how many times it was killed on the way.
        seconds: between its first call and its end.
    """

    kills: int
    seconds: float


def make_clean(project: Project) -> None:
    """Remove what `make run` made."""
    subprocess.run(["make", "clean"], cwd=project.folder, check=True, stdout=subprocess.DEVNULL)


def ordeal(
    project: Project,
    kills: int,
    longest: float,
    seed: int,
    command: Sequence[str] = ("make", "run"),
    anew: Callable[[Project], object] = make_clean,
    shortest: float = 0,
) -> Iterator[Completed]:
    """Kill runs until enough were killed.

    A run that comes through is followed by a new one from nothing.

    Args:
        project: prepared by `projects.project.use_make` for `make run`.
        kills: how many in all.
        shortest, longest: seconds that a run is left alone at least and at most; moments are
            uniform between.
        seed: of the moments.
        command: the run.
        anew: makes the project as before the first run.

    Yields:
        Each run as it comes through; the results lie in the project until the next one is asked
        for.
    """
    moments = random.Random(seed)
    killed = 0
    killed_before_this_run = 0
    begun = time.monotonic()
    while True:
        run = project.start(*command)
        try:
            status = run.wait(moments.uniform(shortest, longest) if killed < kills else None)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            killed += 1
            # A killed group leaves nothing behind that could go on beside the next call.
            assert wait_until(lambda: not project.processes(), 5), (
                f"these outlive the kill: {project.processes()}"
            )
            print(f"kill {killed} of {kills}", flush=True)
            project.unlock()
            continue
        assert status == 0, project.printed()
        yield Completed(killed - killed_before_this_run, time.monotonic() - begun)
        if killed >= kills:
            return
        killed_before_this_run = killed
        begun = time.monotonic()
        anew(project)
