"""LDIFS: fine-tuning with a penalty on the distance from the pretrained model's features at several depths.

The features are those of rib.models.layers: after each quarter of the depth, averaged over positions, and before the
head. Without augmentation the pretrained ones are computed once, unless the target is too large.

Source: Mukhoti et al. 2023 (arXiv 2308.13320), the L_LDIFS objective: the squared distance between features that are
concatenated over depths. The authors' code (loss/ldifs.py:11-41) compares single tokens, scaled to unit norm over tokens,
and takes means over tokens, channels and depths. `unit` scales too, over channels, so that depths and networks count alike.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.methods import NonNegative, algorithm
from rib.methods.base import FineTuning, Task
from rib.methods.lwf import pretrained_outputs
from rib.models.layers import layers_and_output

MOST_STORED = 100_000  # images up to which pretrained features are stored (2 GB for a ViT-L), not recomputed


@algorithm
class FeatureDistance(FineTuning):
    """Minimise CE + weight * ||phi(x; theta) - phi(x; start)||^2, mean over the batch, phi the concatenated features."""

    weight: NonNegative  # lambda in the paper
    features: Literal["raw", "unit"]  # unit: scaled to norm 1 at each depth, so that their distance is at most 4

    def setup(self, task: Task) -> None:
        super().setup(task)
        if self.dropout:
            raise ValueError(
                "the features before the head would have another dropout than the logits; set dropout to 0"
            )
        self.start = pretrained_outputs(lambda *given: self._phi(*given)[0], task, MOST_STORED, "pretrained features")

    def logits(self, rows: np.ndarray) -> Tensor:
        self.phi, output = self._phi(self.model, self.inputs[rows])  # of the same pass, for the penalty that follows
        return self.model.forward_head(output)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        return self.weight * (self.phi - self.start(rows)).square().sum(dim=1).mean()

    def _phi(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Concatenated features (N, d) in float32, and the output of `forward_features`."""
        layers, output = layers_and_output(network, images)
        parts = [part.float() for part in layers.values()]
        return torch.cat([F.normalize(part) for part in parts] if self.features == "unit" else parts, dim=1), output
