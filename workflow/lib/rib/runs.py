"""What a run is. No torch."""

from dataclasses import dataclass

PRETRAINED = "pretrained"
NO_TARGET = "none"


@dataclass(frozen=True)
class Run:
    """One model state that is evaluated.

    The model before fine-tuning is method `pretrained` on target `none`, with seed 0, since no seed acts on it.
    """

    model: str
    target: str
    method: str
    seed: int
