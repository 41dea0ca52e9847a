"""LDIFS: fine-tuning with a penalty on the distance from the pretrained model's features.

Source: Mukhoti et al. 2023 (arXiv 2308.13320), the L_LDIFS objective, in the form of the authors'
code (omegafragger/ldifs_code, commit 5ffdeef), with their weight of 10 (args.py). Features are all
tokens at five depths: the input of the first block and the outputs after each quarter of the blocks
(model/modeling.py:95-131). Each channel is scaled to norm 1 over the tokens; squared differences
are averaged over channels, tokens and depths (loss/ldifs.py:11-43).

The code has only CLIP's ViTs. Here, in a hierarchical network such as a CNN, the positions of
feature maps take the place of tokens, and the depths are the input of the first of its last four
stages and the outputs of these four. There a channel may be zero at all positions, after a ReLU,
and would jump to norm 1 as soon as it isn't: training oscillates. So each norm is raised to at
least a tenth of the mean norm at its depth (SMALLEST).

Without augmentation the pretrained features are computed once, unless they take more than
2 GiB (LARGEST_STORED); the authors' code computes them in every step, with the same result.
"""

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from rib.methods import NonNegative
from rib.methods._distil import Distillation
from rib.methods.base import Task
from rib.models.layers import is_hierarchical
from rib.models.network import Classifier
from rib.models.token_features import token_features

SMALLEST = 0.1  # smallest norm in feature maps, as a fraction of the mean over channels
TINY = 1e-10  # from the authors' code; avoids division by 0


@dataclass(kw_only=True)
class FeatureDistance(Distillation):
    """Minimise CE + weight * mean of (phi(x; theta) - phi(x; start))^2.

    The mean is over images, depths, tokens and channels. phi are the features of image x; each
    channel has norm 1 over the tokens.
    """

    weight: NonNegative  # lambda in the paper

    def setup(self, task: Task) -> None:
        """Store the pretrained features of all images, if they fit."""
        super().setup(task)
        # Not in fp16, in which most of these small numbers have few digits.
        self.pretrained_features = self.pretrained_outputs(_features, "pretrained features")

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, outputs); keeps the features of the same pass for `penalty`."""
        self.features, output = scaled_features(self.model, self.images[rows])
        return self.model.forward_head(output)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """Distance from the pretrained features, by the features that `self.logits` kept."""
        differences = self.features - self.pretrained_features(rows)
        squared_distances = differences.square().sum(dim=1)
        return self.weight * squared_distances.mean()


def _features(network: Classifier, images: Tensor) -> Tensor:
    """Features phi of images, (N, values), for `Distillation.pretrained_outputs`."""
    features, _ = scaled_features(network, images)
    return features


def scaled_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features phi of images (N, 3, H, W), and the output of `forward_features`, from one pass.

    Returns:
        phi, (N, values) in float32; and the output. A squared distance of phi is the mean over
        depths, tokens and channels, since the values of a depth with T tokens and C channels are
        divided by the square root of T * C * depths.
    """
    depths, output = token_features(network, images)
    smallest = SMALLEST if is_hierarchical(network) else 0.0
    scaled = []
    for tokens in depths:
        _, tokens_per_image, channels = tokens.shape
        divisor = (tokens_per_image * channels * len(depths)) ** 0.5
        tokens_of_norm_1 = with_unit_channels(tokens.float(), smallest)
        scaled.append((tokens_of_norm_1 / divisor).flatten(1))
    return torch.cat(scaled, dim=1), output


def with_unit_channels(tokens: Tensor, smallest: float) -> Tensor:
    """Tokens (N, T, C), each channel of an image divided by its norm over the tokens.

    Args:
        smallest: lower bound of a norm, as a fraction of the mean norm of the image's channels.
    """
    norms = torch.linalg.vector_norm(tokens, dim=1, keepdim=True)  # (N, 1, C)
    mean_norm = norms.detach().mean(dim=2, keepdim=True)  # (N, 1, 1)
    divisors = torch.maximum(norms, smallest * mean_norm) + TINY
    return tokens / divisors
