"""Limits of time of jobs on a cluster, from the plan's images and rates of a card. No torch."""

import math
from functools import cached_property
from pathlib import Path

from rib.config.evaluation_groups import evaluation_groups
from rib.config.grid import Grid
from rib.config.memory import NetworkMemory
from rib.config.run import Run
from rib.report.plan import (
    TAUGHT,
    Passes,
    images_of_datasets,
    images_of_test_splits,
    passes_of_teacher,
    passes_of_training,
    used_images,
)
from rib.report.rates import EVALUATE, TRAIN, Rates, throughput_of_card

# A cluster may have slower cards than the one whose rates are known, and reads images meanwhile.
MARGIN = 3
FEWEST_MINUTES = 30
MOST_MINUTES = 2 * 24 * 60  # a training that is ended then goes on when it is submitted again


class RunTimes:
    """Minutes that jobs of a grid may take on a GPU; None where nobody knows.

    Args:
        results: folder of the family, such as results/emoji.
    """

    def __init__(self, grid: Grid, results: Path):
        """Arguments are those of the class. Nothing is read yet."""
        self.grid = grid
        self.results = results
        self.on_cpu = grid.config["compute"]["device"] == "cpu"

    def of_training(self, run: Run) -> int | None:
        """Minutes of the job that trains a run, such as 95."""
        seconds = self._seconds(passes_of_training(self.grid, self._used_images, run), TRAIN)
        if seconds is not None and self.grid.methods[run.method].algorithm in TAUGHT:
            of_teacher = passes_of_teacher(self.grid, self._used_images, run)
            seconds += self._seconds(of_teacher, EVALUATE) or 0
        return _minutes(seconds)

    def of_evaluation(self, model: str, method: str, group: str) -> int | None:
        """Minutes of the job that evaluates an entry of a method on an evaluation group."""
        datasets = self._groups[group]
        images = images_of_test_splits(self.grid, self._used_images, datasets)
        # The parts of a dataset have about as many images each.
        parts = sum(others == datasets for others in self._groups.values())
        networks = self._memory.networks_of(method)
        passes = Passes(model, math.ceil(networks * images / parts))
        return _minutes(self._seconds(passes, EVALUATE))

    def _seconds(self, passes: Passes, kind: str) -> float | None:
        """Seconds on the card whose rates are known; None if they or the images are not."""
        rates = self._rates[passes.model]
        if self.on_cpu or kind not in rates or passes.images == 0:
            return None
        return passes.images / rates[kind].images * passes.cost

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        """Datasets of each evaluation group."""
        return evaluation_groups(self.grid)

    @cached_property
    def _used_images(self) -> dict[str, int]:
        """Number of images of each dataset that runs use: {"noto": 1200}."""
        return used_images(self.grid, images_of_datasets(self.grid, self.results))

    @cached_property
    def _rates(self) -> Rates:
        """Images per second of each model."""
        return throughput_of_card(self.grid)

    @cached_property
    def _memory(self) -> NetworkMemory:
        """It knows how many networks an evaluation has."""
        return NetworkMemory(self.grid)


def _minutes(seconds: float | None) -> int | None:
    """A limit for work that takes so many seconds, in whole minutes."""
    if seconds is None:
        return None
    return min(MOST_MINUTES, max(FEWEST_MINUTES, math.ceil(MARGIN * seconds / 60)))
