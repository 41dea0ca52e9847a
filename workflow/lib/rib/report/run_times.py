"""Time limits of jobs on a cluster, from the plan's images and a card's rates. No torch."""

import math
from functools import cached_property
from pathlib import Path

from rib.grid.evaluation_groups import evaluation_groups
from rib.grid.grid import Grid
from rib.grid.memory import NetworkMemory
from rib.report.plan import (
    Passes,
    count_images,
    images_of_test_splits,
    passes_of_teacher,
    passes_of_training,
    used_images,
)
from rib.report.rates import EVALUATE, TRAIN, Rates, throughput_of_card
from rib.schema.run import Run

# A cluster may have slower cards than the one with known rates, and must also read the images.
MARGIN = 3
FEWEST_MINUTES = 30


class RunTimes:
    """Minutes that a cluster may give jobs of a grid on a GPU; None if unknown.

    These are three times the estimate, at least 30 and at most config's `compute.max_runtime`; a
    longer training goes on when it is submitted again.

    Args:
        results: folder of the family, such as results/emoji.
    """

    def __init__(self, grid: Grid, results: Path):
        self.grid = grid
        self.results = results
        self.on_cpu = grid.config["compute"]["device"] == "cpu"

    def of_training(self, run: Run) -> int | None:
        """Minutes for the job that trains a run, such as 95."""
        seconds = self._seconds(passes_of_training(self.grid, self._used_images, run), TRAIN)
        if seconds is not None and self.grid.methods[run.method].pretrained_teacher:
            of_teacher = passes_of_teacher(self.grid, self._used_images, run)
            seconds += self._seconds(of_teacher, EVALUATE) or 0
        return self._minutes(seconds)

    def of_evaluation(self, model: str, method: str, group: str) -> int | None:
        """Minutes for the job that evaluates a method on a group of datasets, such as `emoji`."""
        datasets = self._groups[group]
        images = images_of_test_splits(self.grid, self._used_images, datasets)
        # Assumes that the parts of a dataset have about as many images each.
        parts = sum(others == datasets for others in self._groups.values())
        networks = self._memory.networks_of(method)
        passes = Passes(model, math.ceil(networks * images / parts))
        return self._minutes(self._seconds(passes, EVALUATE))

    def _minutes(self, seconds: float | None) -> int | None:
        """Time limit of a job that is estimated to take these seconds; None gives None."""
        if seconds is None:
            return None
        minutes = max(FEWEST_MINUTES, math.ceil(MARGIN * seconds / 60))
        most: int = self.grid.config["compute"]["max_runtime"]
        return min(most, minutes)

    def _seconds(self, passes: Passes, kind: str) -> float | None:
        """Seconds of passes; None on a CPU, or if the card's rate or the images are unknown."""
        rates = self._rates[passes.model]
        if self.on_cpu or kind not in rates or passes.images == 0:
            return None
        return passes.images / rates[kind].images * passes.cost

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        """Datasets of each job of an evaluation: {"emoji": ["noto", "twemoji"], ...}."""
        return evaluation_groups(self.grid)

    @cached_property
    def _used_images(self) -> dict[str, int]:
        """Number of images that runs use, by dataset: {"noto": 1200}."""
        return used_images(self.grid, count_images(self.grid, self.results))

    @cached_property
    def _rates(self) -> Rates:
        """Images per second on a card: {"net": {"train": Rate(100, "stated")}}."""
        return throughput_of_card(self.grid)

    @cached_property
    def _memory(self) -> NetworkMemory:
        """Used only for the number of networks in an evaluation."""
        return NetworkMemory(self.grid)
