"""How a network is trained: length, batches, optimiser and schedule."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rib.config.run import ALL


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of training; those of the optimiser and the schedule are a recipe's (rib.config.entries.Schedule)."""

    batch_size: int  # images per step
    micro_batch_size: int | str  # images per forward pass, or `all` for the whole batch
    momentum: float
    weight_decay: float  # of SGD an L2 penalty, otherwise decoupled
    warmup_steps: float  # maximum number of linear warm-up steps
    warmup_fraction: (
        float  # maximum fraction of warm-up steps; the smaller of the two limits applies
    )
    epochs: int | None = None  # passes over the target; None if `steps` is given
    steps: int | None = None
    subset_length: str = (
        "steps"  # a subset of the target is trained for as many `steps` or `epochs` as the whole
    )
    optimizer: str = "sgd"
    decay_norm_and_bias: bool = True  # whether weight decay includes biases and the scales of norms
    layer_decay: float | None = (
        None  # factor of the learning rate per layer from the head down; None for 1
    )
    clip_norm: float | None = None  # maximum norm of the gradient; None for no limit
    label_smoothing: float = 0.0
    augmentation: Sequence[str] = ()  # see rib.models.augmentation

    @property
    def micro(self) -> int:
        """Images per forward pass."""
        return self.batch_size if self.micro_batch_size == ALL else self.micro_batch_size

    def steps_per_epoch(self, images: int) -> int:
        return math.ceil(images / self.batch_size)

    def total_steps(self, images: int, whole: int) -> int:
        """Number of steps on a training set with so many images, part of the whole target with so many."""
        counted = whole if self.subset_length == "steps" else images
        return self.steps or self.epochs * self.steps_per_epoch(counted)

    def images_seen(self, steps: int, images: int) -> int:
        """Number of images, with repetitions, in the first steps on a training set of this size."""
        passes, last = divmod(steps, self.steps_per_epoch(images))
        return passes * images + last * self.batch_size


def learning_rates(peak: float, steps: int, training: TrainingSettings) -> Iterator[float]:
    """Yield the learning rate of each step: linear warm-up to the peak, then a cosine to zero.

    The released code always warms up for 196 steps, so short runs never leave the warm-up (lib/argument.py:26 with
    utils/utils.py:92-100). Here the warm-up is at most a fraction of all steps.
    """
    warmup = min(training.warmup_steps, int(training.warmup_fraction * steps))
    for step in range(steps):
        if step < warmup:
            yield peak * (step + 1) / warmup
        else:
            yield peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
