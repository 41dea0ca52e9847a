"""A run of the grid. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

PRETRAINED = "pretrained"
NO_TARGET = "none"
MEAN = "mean"  # target of table rows for all targets together
ALL: Final = "all"  # size of a run that trains on the whole target

# Forms of merges whose network is computed when it is loaded.
MERGE = "merge"
ENSEMBLE = "ensemble"
LOADED = (MERGE, ENSEMBLE)

# What differs between the parents of a merge.
METHODS = "methods"
SEEDS = "seeds"
VARIANTS = "variants"
TARGETS = "targets"

RUN_COLUMNS = ["model", "method", "target", "size", "seed"]  # table columns that identify a run


def in_path(setting: object) -> str:
    """A setting as written in paths: 0.00001 for 1e-05, since an exponent may have a minus sign."""
    if isinstance(setting, float):
        return f"{setting:.12f}".rstrip("0").rstrip(".")
    return str(setting)


def images_of(size: str, images_of_dataset: int) -> int:
    """Number of images of a training subset.

    Args:
        size: `all`, a number of images such as `500`, or a fraction of the dataset such as `0.5`.
        images_of_dataset: number of images of the whole dataset.
    """
    if size == ALL:
        return images_of_dataset
    if "." in size:
        return round(float(size) * images_of_dataset)
    return int(size)


def largest(sizes: Iterable[str]) -> str:
    """The size in figures and headlines: `all`, else the largest fraction, else the largest number.

    Fractions and numbers cannot be compared before the images of datasets are counted.
    """
    return max(sizes, key=_rank_of_size)


def _rank_of_size(size: str) -> tuple[int, float]:
    """(2, 0.0) for `all`, (1, 0.5) for `0.5`, (0, 1000.0) for `1000`."""
    if size == ALL:
        return 2, 0.0
    if "." in size:
        return 1, float(size)
    return 0, float(size)


@dataclass(frozen=True)
class Run:
    """One evaluated network: Run("net", "sketch", "ft", "all", 0).

    A pretrained model has method `pretrained`, target `none`, size `all` and seed 0.
    """

    model: str
    target: str
    method: str
    size: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model}/{self.target}/{self.method}/{self.size}/{self.seed}"

    @classmethod
    def parse(cls, text: str) -> "Run":
        """The run written as model/target/method/size/seed."""
        model, target, method, size, seed = text.split("/")
        return cls(model, target, method, size, int(seed))

    @classmethod
    def from_wildcards(cls, wildcards: Any) -> "Run":
        """The run of a job, from Snakemake's wildcards model, target, method, size and seed."""
        return cls(
            model=wildcards.model,
            target=wildcards.target,
            method=wildcards.method,
            size=wildcards.size,
            seed=int(wildcards.seed),
        )

    def values(self, columns: Iterable[str]) -> tuple[Any, ...]:
        """Attributes in the order of table columns: ("ft", 0) for ["method", "seed"]."""
        return tuple(getattr(self, column) for column in columns)


@cache
def parent_of(key: str) -> dict[str, str | int]:
    """Attributes in which a parent's run differs from its merge's run.

    Args:
        key: `ft` gives {"method": "ft"}, `ft, seed 1` gives {"method": "ft", "seed": 1}, and `ft,
            target sketch` gives {"method": "ft", "target": "sketch"}.
    """
    method, _, seed_or_target = key.partition(", ")
    differences: dict[str, str | int] = {"method": method}
    if seed_or_target:
        column, _, name = seed_or_target.partition(" ")
        differences[column] = int(name) if column == "seed" else name
    return differences
