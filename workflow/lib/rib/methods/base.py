"""Base class of fine-tuning methods; the training loop is in rib.training.finetune."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rib.models.checkpoint import changed_tensors
from rib.models.inputs import Images
from rib.models.text import Text

BATCH_NORM = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Task:
    """Input of a method."""

    model: nn.Module  # the network to train, in evaluation mode
    target: Images  # to train on
    reference: Images | None  # the pretraining proxy
    seed: int
    text: Text | None = None  # of an open_clip model, if the method's entry has `text: required`


class FineTuning:
    """Defines the trained parameters, the logits and the loss. The defaults are those of full fine-tuning.

    A subclass takes these settings as `**common` and passes them on.

    Args:
        lr: peak learning rate, above 0.
        batch_norm: `frozen` keeps the BatchNorm statistics, `train` updates them.
        dropout: dropout probability before the network's classifier, 0 to below 1.
        drop_path: probability of skipping a residual block in training (timm's stochastic depth), 0 to below 1.
    """

    whole_batches = False  # True if the error of a batch is not the mean over parts of it

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
        self.steps = 0  # of the whole training, set by the training loop
        self.facts: dict = {}  # further entries of the manifest
        # Tensors that change from step to step, besides the trained parameters, made in `setup`; a killed training
        # resumes with their values, which are copied into them.
        self.memory: dict[str, Tensor] = {}

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

    def error(self, rows: np.ndarray, cross_entropy: Tensor) -> Tensor:
        """Scalar that is minimised on a batch, for which `logits` was called before: the cross-entropy of class logits."""
        return cross_entropy

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor | float:
        """Scalar that is added to the error of a batch."""
        return 0.0

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step with the optimiser of the recipe; gradients are those of the batch, clipped if the recipe does."""
        optimizer.step()

    def state_delta(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors to store in the checkpoint, in the form of rib.models.checkpoint, given the pretrained state dict."""
        return changed_tensors(pretrained, self.model.state_dict())


def anchored(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[nn.Parameter, Tensor]]:
    """Each parameter with a copy of its current value, for penalties on the distance from it."""
    return [(parameter, parameter.detach().clone()) for _, parameter in parameters]
