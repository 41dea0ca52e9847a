"""What a run is. No torch."""

from dataclasses import dataclass

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
