"""A run of the grid. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PRETRAINED = "pretrained"
NO_TARGET = "none"
MEAN = "mean"  # target of table rows that cover all targets
ALL = "all"  # size of a run that trains on the whole target
MERGE, ENSEMBLE = LOADED = (
    "merge",
    "ensemble",
)  # forms of algorithms that make a run's network when it is loaded
METHODS, SEEDS, VARIANTS, TARGETS = (
    "methods",
    "seeds",
    "variants",
    "targets",
)  # what the parents of a merge differ in
RUN_COLUMNS = ["model", "method", "target", "size", "seed"]  # table columns that identify a run


def images_of(size: str, whole: int) -> int:
    """Number of images of a size: of `all`, a number of images, or a fraction (written with a point: 0.5) of the whole."""
    if size == ALL:
        return whole
    return round(float(size) * whole) if "." in size else int(size)


def largest(sizes: Iterable[str]) -> str:
    """The size shown in figures and headlines: `all` if it was run, else the largest fraction, else the largest number.

    Fractions and numbers cannot be compared before the images of datasets are counted.
    """
    return max(
        sizes, key=lambda size: (size == ALL, "." in size, 0.0 if size == ALL else float(size))
    )


@dataclass(frozen=True)
class Run:
    """One evaluated model state; before fine-tuning, method `pretrained`, target `none`, size `all` and seed 0."""

    model: str
    target: str
    method: str
    size: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model}/{self.target}/{self.method}/{self.size}/{self.seed}"

    def values(self, columns: Iterable[str]) -> tuple:
        """Attributes in the order of the given table columns."""
        return tuple(getattr(self, column) for column in columns)


@cache
def parent_of(key: str) -> dict[str, str | int]:
    """What differs between a merge's run and the parent with a key: `ft, seed 1` is {"method": "ft", "seed": 1}."""
    method, _, other = key.partition(", ")
    column, _, value = other.partition(" ")
    return {"method": method} | (
        {column: int(value) if column == "seed" else value} if other else {}
    )


def run_of(path: Path) -> Run:
    """The run of a file .../{model}/{target}/{method}/{size}/{seed}/{file}."""
    model, target, method, size, seed = path.parts[-6:-1]
    return Run(model, target, method, size, int(seed))


def by_run(files: Iterable[Path]) -> dict[Run, dict[str, Path]]:
    """Files of each run (see `run_of`), by name without ending."""
    runs: dict[Run, dict[str, Path]] = {}
    for path in files:
        runs.setdefault(run_of(path), {})[path.stem] = path
    return runs
