"""Base class of fine-tuning methods; the training loop is in rib.training.finetune."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from rib.models.checkpoint import changed_tensors
from rib.models.inputs import Inputs

BATCH_NORM = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Images:
    """Labelled images, on the device."""

    inputs: Inputs  # the n images
    labels: Tensor  # (n,) int64, class indices
    members: Tensor  # (C, K) int64, the network outputs of each class (see rib.models.class_logits)


@dataclass(frozen=True)
class Task:
    """Input of a method."""

    model: nn.Module  # the network to train, in evaluation mode
    target: Images  # to train on
    reference: Images | None  # the pretraining proxy
    seed: int


class FineTuning:
    """Defines the trained parameters, the logits and the penalty. The defaults are those of full fine-tuning.

    A subclass takes these settings as `**common` and passes them on.

    Args:
        lr: peak learning rate, above 0.
        batch_norm: `frozen` keeps the BatchNorm statistics, `train` updates them.
        dropout: dropout probability before the network's classifier, 0 to below 1.
        drop_path: probability of skipping a residual block in training (timm's stochastic depth), 0 to below 1.
    """

    def __init__(self, *, lr: float, batch_norm: str = "frozen", dropout: float = 0.0, drop_path: float = 0.0):
        if lr <= 0:
            raise ValueError(f"lr is {lr}; set a number above 0")
        if batch_norm not in ("frozen", "train"):
            raise ValueError(f"batch_norm is '{batch_norm}'; set 'frozen' or 'train'")
        for name, rate in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} is {rate}; set a number of at least 0 and below 1")
        self.lr, self.batch_norm, self.dropout, self.drop_path = lr, batch_norm, dropout, drop_path
        self.step = 0  # completed steps, counted by the training loop
        self.facts: dict = {}  # further entries of the manifest

    def setup(self, task: Task) -> None:
        """Prepare for training; called once."""
        self.task, self.model, self.inputs = task, task.model, task.target.inputs

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that are trained."""
        return self.model.named_parameters()

    def train_mode(self) -> None:
        """Set the network's training mode."""
        self.model.train()
        for module in self.model.modules():
            if self.batch_norm == "frozen" and isinstance(module, BATCH_NORM):
                module.eval()

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, 1000) of the given rows of the target."""
        return self.model(self.inputs[rows])

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor | float:
        """Scalar that is added to the cross-entropy of a batch."""
        return 0.0

    def state_delta(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors to store in the checkpoint, in the form of rib.models.checkpoint, given the pretrained state dict."""
        return changed_tensors(pretrained, self.model.state_dict())


def anchored(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[nn.Parameter, Tensor]]:
    """Each parameter with a copy of its current value, for penalties on the distance from it."""
    return [(parameter, parameter.detach().clone()) for _, parameter in parameters]
