"""What a run is. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PRETRAINED = "pretrained"
NO_TARGET = "none"
CORRUPT_ALLOWED = "RIB_CORRUPT_IMAGES"  # environment variable: how many images of a dataset may be left out
JOBS_PER_GPU = "RIB_JOBS_PER_GPU"  # environment variable: how many jobs may share a GPU
ALL = "all"  # the size of a run that trains on everything


def images_of(size: str, whole: int) -> int:
    """Images that a size stands for.

    Args:
        size: `all`, a number of images, or a fraction of them (with a point: 0.5).
        whole: how many there are.
    """
    if size == ALL:
        return whole
    return round(float(size) * whole) if "." in size else int(size)


def largest(sizes: Iterable[str]) -> str:
    """The size that figures and headlines show: `all` where it was run, else the largest fraction, else the largest number.

    Fractions and numbers can't be compared before datasets are counted, and a dataset may be smaller than a number.
    """
    return max(sizes, key=lambda size: (size == ALL, "." in size, 0.0 if size == ALL else float(size)))


@dataclass(frozen=True)
class Run:
    """One model state that is evaluated.

    The model before fine-tuning is method `pretrained` on target `none`, of size `all` and with seed 0, since neither
    acts on it.
    """

    model: str
    target: str
    method: str
    size: str
    seed: int

    def values(self, columns: Iterable[str]) -> tuple:
        """Some of the attributes, in the order of a table's columns."""
        return tuple(getattr(self, column) for column in columns)


def run_of(path: Path) -> Run:
    """The run that a file is of: .../{model}/{target}/{method}/{size}/{seed}/{file}."""
    model, target, method, size, seed = path.parts[-6:-1]
    return Run(model, target, method, size, int(seed))
