"""How a network is trained: length, batches, optimiser and schedule."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rib.config.run import ALL


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of training; those of the optimiser and the schedule are a recipe's (rib.config.entries.Recipe).

    Attributes:
        epochs: passes over the target; None if `steps` is given.
        subset_length: `steps` if a subset of the target is trained for as many steps as the whole, `epochs` if for as
            many epochs.
        batch_size: images per step.
        micro_batch_size: images per forward pass, or `all` for the whole batch.
        warmup_steps: maximum number of linear warm-up steps.
        warmup_fraction: maximum fraction of warm-up steps; the smaller of the two limits applies.
        weight_decay: of SGD an L2 penalty, otherwise decoupled.
        decay_norm_and_bias: whether it includes biases and the scales of norms.
        layer_decay: factor of the learning rate per layer from the head down; None for 1.
        clip_norm: maximum norm of the gradient; None for no limit.
        augmentation: see rib.models.augmentation.
    """

    batch_size: int
    micro_batch_size: int | str
    momentum: float
    weight_decay: float
    warmup_steps: float
    warmup_fraction: float
    epochs: int | None = None
    steps: int | None = None
    subset_length: str = "steps"
    optimizer: str = "sgd"
    decay_norm_and_bias: bool = True
    layer_decay: float | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    augmentation: Sequence[str] = ()

    @property
    def micro(self) -> int:
        """Images per forward pass."""
        return self.batch_size if self.micro_batch_size == ALL else self.micro_batch_size

    def steps_per_epoch(self, images: int) -> int:
        return math.ceil(images / self.batch_size)

    def total_steps(self, images: int, whole: int) -> int:
        """Number of steps on a training set that is part of a whole.

        Args:
            images, whole: number of images of the training set, and of the whole target.
        """
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
