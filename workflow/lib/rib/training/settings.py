"""How a network is trained: length, batches, optimiser and schedule. No torch."""

import math
from collections.abc import Iterator
from typing import Literal

from pydantic import JsonValue

from rib.base.settings import FreeSettings, Settings, Texts
from rib.config.run import ALL
from rib.data.settings import DatasetView
from rib.models.settings import ComputeSettings


class TrainingSettings(Settings):
    """Length, batches, optimiser and schedule.

    Optimiser and schedule are a recipe's (rib.config.entries.Recipe). The peak learning rate is not
    here: it is a setting of the method.
    """

    batch_size: int  # images per step
    micro_batch_size: int | Literal["all"]  # images per forward pass, or the whole batch
    momentum: float
    weight_decay: float  # of SGD an L2 penalty, otherwise decoupled
    warmup_steps: float  # maximum number of linear warm-up steps
    # maximum fraction of warm-up steps; the smaller of the two limits applies
    warmup_fraction: float
    epochs: int | None = None  # passes over the target; None if `steps` is given
    steps: int | None = None
    # a subset of the target is trained for as many `steps` or `epochs` as the whole
    subset_length: Literal["steps", "epochs"] = "steps"
    optimizer: Literal["sgd", "adamw", "lion"] = "sgd"
    decay_norm_and_bias: bool = True  # whether weight decay includes biases and the scales of norms
    # factor of the learning rate per layer from the head down; None for 1
    layer_decay: float | None = None
    clip_norm: float | None = None  # maximum norm of the gradient; None for no limit
    label_smoothing: float = 0.0
    augmentation: Texts = ()  # see rib.models.augmentation

    @property
    def micro(self) -> int:
        """Images per forward pass."""
        if self.micro_batch_size == ALL:
            return self.batch_size
        return self.micro_batch_size

    def steps_per_epoch(self, images: int) -> int:
        """Number of steps of a pass over so many images."""
        return math.ceil(images / self.batch_size)

    def total_steps(self, images: int, images_of_target: int) -> int:
        """Number of steps of a training.

        Args:
            images: number of images that are trained on, the whole target or a subset of it.
            images_of_target: number of images of the whole target.
        """
        if self.steps:
            return self.steps
        assert self.epochs is not None  # either steps or epochs are given
        if self.subset_length == "steps":
            return self.epochs * self.steps_per_epoch(images_of_target)
        return self.epochs * self.steps_per_epoch(images)

    def images_seen(self, steps: int, images: int) -> int:
        """Number of images, with repetitions, that a training has seen after some steps.

        With batches of 64 and 100 images, which are two steps per pass, it is 164 after 3 steps.

        Args:
            images: number of images that are trained on.
        """
        passes, steps_of_last_pass = divmod(steps, self.steps_per_epoch(images))
        return passes * images + steps_of_last_pass * self.batch_size


class FineTuningSettings(Settings):
    """What a checkpoint depends on, besides its run and its input files."""

    algorithm: str  # file of the method's algorithm
    settings: FreeSettings  # of the algorithm
    # methods whose checkpoints training starts from, such as `ft`; none for the pretrained model
    parents: Texts
    training: TrainingSettings | None  # None if the method has weights that were trained elsewhere
    view: DatasetView  # the part of the target and of the pretraining proxy that is used
    compute: ComputeSettings
    code: str  # digest of the source code


class PretrainingSettings(Settings):
    """What a model that is pretrained here depends on, besides its datasets."""

    # facts of the catalogue entry (rib.config.model_facts); `pretrain` states data, rate and seed
    entry: dict[str, JsonValue]
    num_classes: int  # outputs of the network
    training: TrainingSettings
    view: DatasetView  # the part of the datasets that is used
    compute: ComputeSettings
    code: str  # digest of the source code


def learning_rates(peak: float, steps: int, training: TrainingSettings) -> Iterator[float]:
    """Yield the learning rate of each step: linear warm-up to the peak, then a cosine to zero.

    The released code always warms up for 196 steps, so short runs never leave the warm-up
    (lib/argument.py:26 with utils/utils.py:92-100). Here the warm-up is at most a fraction of all
    steps.
    """
    warmup = min(training.warmup_steps, int(training.warmup_fraction * steps))
    for step in range(steps):
        if step < warmup:
            yield peak * (step + 1) / warmup
        else:
            # From 0 at the end of the warm-up to pi at the end of training.
            angle = math.pi * (step - warmup) / (steps - warmup)
            yield peak * 0.5 * (1 + math.cos(angle))
