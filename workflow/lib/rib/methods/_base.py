"""What a fine-tuning method decides; the training loop is rib.finetune."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from rib.models.inputs import Inputs

BATCH_NORM = nn.modules.batchnorm._NormBase


class FineTuning:
    """Which parameters train, from which logits, with which penalty. The defaults are those of full fine-tuning.

    Args:
        lr: peak learning rate of SGD, above 0.
        batch_norm: `frozen` keeps BatchNorm's statistics, `train` lets them follow the batches.
    """

    def __init__(self, *, lr: float, batch_norm: str):
        if batch_norm not in ("frozen", "train"):
            raise ValueError(f"batch_norm is '{batch_norm}'; give 'frozen' or 'train'")
        self.lr = lr
        self.batch_norm = batch_norm

    def begin(self, model: nn.Module, inputs: Inputs) -> None:
        """Called once before training, with the pretrained network in evaluation mode."""
        self.model = model
        self.inputs = inputs

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


@torch.inference_mode()
def in_batches(function, inputs: Inputs, batch_size: int) -> Tensor:
    """`function` over all images in order, concatenated: (n, ...)."""
    parts = [function(inputs[slice(start, start + batch_size)]) for start in range(0, len(inputs), batch_size)]
    return torch.cat(parts)
