"""Settings of pretraining and fine-tuning. No torch."""

import math
from collections.abc import Iterator
from typing import Literal

from pydantic import JsonValue

from rib.base.params import FreeSettings, Settings, Texts
from rib.data.data_settings import DatasetView
from rib.models.model_settings import ComputeSettings
from rib.schema.method_facts import MethodFacts
from rib.schema.run import ALL


class TrainingSettings(Settings):
    """Length, batches, optimiser and schedule; the method has the peak learning rate."""

    batch_size: int  # images per step
    micro_batch_size: int | Literal["all"]  # images per forward pass, or the whole batch
    momentum: float
    weight_decay: float  # an L2 penalty in SGD, otherwise decoupled
    warmup_steps: float  # maximum number of linear warm-up steps
    # maximum fraction of warm-up steps; the smaller limit applies
    warmup_fraction: float
    epochs: int | None = None  # passes over the target; None if `steps` is given
    steps: int | None = None
    # a subset of the target is trained for as many `steps` or `epochs` as the whole target
    subset_length: Literal["steps", "epochs"] = "steps"
    optimizer: Literal["sgd", "adamw", "lion"] = "sgd"
    decay_norm_and_bias: bool = True  # whether weight decay includes biases and the scales of norms
    # factor of the learning rate from one layer to the next below it; None for 1
    layer_decay: float | None = None
    clip_norm: float | None = None  # maximum norm of the gradient; None for no limit
    label_smoothing: float = 0.0
    augmentation: Texts = ()  # any of `crop`, `flip` and `randaugment`

    @property
    def micro(self) -> int:
        """Images per forward pass."""
        if self.micro_batch_size == ALL:
            return self.batch_size
        return self.micro_batch_size

    def steps_per_epoch(self, images: int) -> int:
        """Number of steps of a pass over this number of images."""
        return math.ceil(images / self.batch_size)

    def total_steps(self, images: int, images_of_target: int) -> int:
        """Number of steps of a training on `images` of the target's `images_of_target` images.

        With `subset_length: steps` a subset gets as many as the whole target.
        """
        if self.steps:
            return self.steps
        assert self.epochs is not None  # either steps or epochs are given
        if self.subset_length == "steps":
            return self.epochs * self.steps_per_epoch(images_of_target)
        return self.epochs * self.steps_per_epoch(images)

    def images_seen(self, steps: int, images: int) -> int:
        """Number of images, with repetitions, that a training has seen after some steps.

        With batches of 64 and 100 training images (`images`), it is 164 after 3 steps.
        """
        passes, steps_of_last_pass = divmod(steps, self.steps_per_epoch(images))
        return passes * images + steps_of_last_pass * self.batch_size


class FineTuningSettings(Settings):
    """Settings of a fine-tuning; its other inputs are the run and files."""

    algorithm: str  # file of the method's algorithm
    settings: FreeSettings  # settings of the algorithm
    facts: MethodFacts  # what the method's entry says and the algorithm's class must say, too
    # methods whose checkpoints training starts from, such as `ft`; none for the pretrained model
    parents: Texts
    training: TrainingSettings | None  # None for weights that were trained elsewhere
    view: DatasetView  # view of the target and of the pretraining proxy
    compute: ComputeSettings
    code: str  # digest of the source code; the job runs again when it changes


class PretrainingSettings(Settings):
    """Settings of a pretraining; its other inputs are datasets."""

    # facts of the catalogue entry (rib.grid.model_facts); `pretrain` states data, rate and seed
    entry: dict[str, JsonValue]
    num_classes: int  # outputs of the network
    training: TrainingSettings
    view: DatasetView
    compute: ComputeSettings
    code: str  # digest of the source code; the job runs again when it changes


def learning_rates(peak: float, steps: int, training: TrainingSettings) -> Iterator[float]:
    """Yield the learning rate of each step: linear warm-up to the peak, then a cosine to zero.

    The released code always warms up for 196 steps, so short runs never leave the warm-up
    (lib/argument.py:26 with utils/utils.py:92-100). Here a fraction of all steps limits it.
    """
    warmup = min(training.warmup_steps, int(training.warmup_fraction * steps))
    for step in range(steps):
        if step < warmup:
            yield peak * (step + 1) / warmup
        else:
            # From 0 after the warm-up to pi at the end of training.
            angle = math.pi * (step - warmup) / (steps - warmup)
            yield peak * 0.5 * (1 + math.cos(angle))
