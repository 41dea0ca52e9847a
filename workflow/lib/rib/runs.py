"""What a run is. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PRETRAINED = "pretrained"
NO_TARGET = "none"
CORRUPT_ALLOWED = "RIB_CORRUPT_IMAGES"  # environment variable: how many images of a dataset may be left out
JOBS_PER_GPU = "RIB_JOBS_PER_GPU"  # environment variable: how many jobs may share a GPU
ALL = "all"  # the size of a run that trains on everything


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
