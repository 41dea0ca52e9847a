"""Base class of fine-tuning methods; the training loop is in rib.training.finetune."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from rib.config.ranges import misfit
from rib.methods import BelowOne, Positive
from rib.models.checkpoint import changed_tensors
from rib.models.inputs import Images
from rib.models.network import Classifier
from rib.models.text import Text

BATCH_NORM = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Task:
    """Input of a method."""

    model: Classifier  # the network to train, in evaluation mode
    target: Images  # to train on
    reference: Images | None  # the pretraining proxy
    seed: int
    text: Text | None = None  # of an open_clip model, if the method's entry has `text: required`
    # Diagonal Fisher information of the model's parameters on the proxy, by name and in their
    # shape, if a job of its own has computed it (rib.config.grid.Grid.shared_fisher).
    fisher: Mapping[str, Tensor] | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class FineTuning:
    """Defines the trained parameters, the logits and the loss.

    The defaults are those of full fine-tuning. Its fields are settings. A subclass adds fields of
    its own (see rib.methods), or has a constructor that takes these as `**common` and passes them
    on.
    """

    lr: Positive  # peak learning rate
    # Keeps the BatchNorm statistics, or updates them.
    batch_norm: Literal["frozen", "train"] = "frozen"
    dropout: BelowOne = 0.0  # dropout probability before the network's classifier
    # Probability of skipping a residual block in training (timm's stochastic depth).
    drop_path: BelowOne = 0.0
    # Not settings:
    # True if the error of a batch is not the mean over smaller batches that it is divided into.
    whole_batches = False
    # True if the network stays in evaluation mode, without dropout or updates of statistics.
    frozen_network = False

    def __post_init__(self) -> None:
        """Check the settings, and prepare what the training loop sets.

        Raises:
            ValueError: a setting is not in the range that its annotation states.
        """
        for field in fields(self):
            # A constructor of a subclass may set its own fields later.
            if field.name in vars(self):
                _check_setting(field.name, field.type, getattr(self, field.name))
        self.step = 0  # completed steps, counted by the training loop
        self.steps = 0  # of the whole training, set by the training loop
        self.facts: dict = {}  # further entries of the manifest
        # Tensors that change from step to step, besides the trained parameters, made in `setup`; a
        # killed training resumes with their values, which are copied into them.
        self.memory: dict[str, Tensor] = {}

    def setup(self, task: Task) -> None:
        """Prepare for training; called once."""
        self.task = task
        self.model = task.model
        self.inputs = task.target.inputs

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that are trained."""
        return self.model.named_parameters()

    def train_mode(self) -> None:
        """Set the network's training mode."""
        self.model.train(not self.frozen_network)
        for module in self.model.modules():
            if self.batch_norm == "frozen" and isinstance(module, BATCH_NORM):
                module.eval()

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, 1000) of the given rows of the target."""
        return self.model(self.inputs[rows])

    def error(self, rows: np.ndarray, cross_entropy: Tensor) -> Tensor:
        """Scalar that is minimised on a batch, for which `logits` was called before.

        It is the cross-entropy of class logits, unless a subclass has another error.

        Args:
            rows: (N,) those of the target in the batch.
            cross_entropy: mean over the batch, a scalar.
        """
        return cross_entropy

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor | float:
        """Scalar that is added to the error of a batch.

        Args:
            rows: (N,) those of the target in the batch.
            logits: (N, outputs) of these images, as `logits` gave them, in float32.
        """
        return 0.0

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step with the optimiser of the recipe.

        Gradients are those of the batch, clipped if the recipe says so.
        """
        optimizer.step()

    def state_delta(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors to store in the checkpoint, in the form of rib.models.checkpoint.

        Args:
            pretrained: the pretrained state dict.
        """
        return changed_tensors(pretrained, self.model.state_dict())


def _check_setting(name: str, annotation: object, setting: object) -> None:
    """Raise a ValueError unless a setting is in the range that its annotation states.

    Args:
        name: of the setting, such as `dropout`.
        annotation: such as `BelowOne`, `Literal["frozen", "train"]`, or either as text.
        setting: its value.
    """
    if get_origin(annotation) is Annotated:  # a range of rib.methods
        _, name_of_range = get_args(annotation)
        expected = misfit(name_of_range, setting)
    else:
        expected = misfit(str(annotation).removeprefix("typing."), setting)
    if expected:
        raise ValueError(f"{name} is {setting!r}; set {expected}")
