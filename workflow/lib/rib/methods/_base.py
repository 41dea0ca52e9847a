"""What a fine-tuning method decides; the training loop is rib.finetune."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from rib.models.checkpoint import changed_tensors
from rib.models.inputs import Inputs

BATCH_NORM = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        inputs: n of them.
        labels: (n,) int64 on the device, indices of classes.
        members: (C, K) int64 on the device, the ImageNet indices of each class (see rib.models.class_logits).
    """

    inputs: Inputs
    labels: Tensor
    members: Tensor


@dataclass(frozen=True)
class Task:
    """What a method starts from.

    Attributes:
        model: the network to train, in evaluation mode.
        target: the images to train on.
        reference: images of the family's reference dataset (what pretraining saw), None where there is none.
        seed: of everything random.
        batch_size: images per step.
    """

    model: nn.Module
    target: Images
    reference: Images | None
    seed: int
    batch_size: int


class FineTuning:
    """Which parameters train, from which logits, with which penalty. The defaults are those of full fine-tuning.

    A subclass takes these settings as `**common` and hands them on.

    Args:
        lr: peak learning rate of SGD, above 0.
        batch_norm: `frozen` keeps BatchNorm's statistics, `train` lets them follow the batches.
        dropout: probability with which the network's classifier drops a feature in training, 0 to below 1.
        drop_path: probability with which a residual block is skipped in training (timm's stochastic depth), likewise.
    """

    def __init__(self, *, lr: float, batch_norm: str, dropout: float, drop_path: float):
        if lr <= 0:
            raise ValueError(f"lr is {lr}; give a number above 0")
        if batch_norm not in ("frozen", "train"):
            raise ValueError(f"batch_norm is '{batch_norm}'; give 'frozen' or 'train'")
        for name, rate in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} is {rate}; give 0 to below 1")
        self.lr = lr
        self.step = 0  # how many steps are done; the training loop counts
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.drop_path = drop_path

    def begin(self, task: Task) -> None:
        """Called once before training."""
        self.task = task
        self.model = task.model
        self.inputs = task.target.inputs

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that train."""
        return self.model.named_parameters()

    def train_mode(self) -> None:
        """Put the network in the mode in which it trains."""
        self.model.train()
        if self.batch_norm == "frozen":
            for module in self.model.modules():
                if isinstance(module, BATCH_NORM):
                    module.eval()

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, 1000) of the target's images with the given rows."""
        return self.model(self.inputs[rows])

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor | float:
        """What is added to the cross-entropy of a batch: a scalar."""
        return 0.0

    def changes(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is stored of the trained network, in a form that rib.models.checkpoint applies.

        Args:
            pretrained: the pretrained state dict.
        """
        return changed_tensors(pretrained, self.model.state_dict())


def anchored(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[nn.Parameter, Tensor]]:
    """Each parameter with a copy of its present value, for penalties on the distance from it."""
    return [(parameter, parameter.detach().clone()) for _, parameter in parameters]
