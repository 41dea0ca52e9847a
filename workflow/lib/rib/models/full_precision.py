"""Layers that compute in the precision of their weights, also where autocast is on.

The layer that gives the logits is one. In bf16, which has 8 significant bits, logits from 8 to 16
would be multiples of 1/16, and those of CLIP, from 16 to 32, of 1/8: classes would tie, and of tied
classes the first would win.
"""

from collections.abc import Callable, Iterable

import timm.layers
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def without_autocast(function: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """What a function gives for features in float32, computed without autocast.

    Where autocast is off, features keep their type.
    """
    device_type = features.device.type
    if not torch.is_autocast_enabled(device_type):
        return function(features)
    with torch.autocast(device_type, enabled=False):
        return function(features.float())


class FullPrecisionLinear(nn.Linear):
    """A linear layer that autocast doesn't change."""

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (N, outputs) of features (N, width)."""
        return without_autocast(super().forward, features)

    def _get_name(self) -> str:
        """The name by which torch describes the layer, also in messages."""
        return "Linear"


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution that autocast doesn't change."""

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (N, outputs, h, w) of features (N, width, h, w)."""
        return without_autocast(super().forward, features)

    def _get_name(self) -> str:
        """The name by which torch describes the layer, also in messages."""
        return "Conv2d"


def keep_precision(heads: Iterable[nn.Module]) -> None:
    """Let the linear layers and convolutions of heads compute in full precision, in place.

    Their parameters, and what they compute without autocast, stay as they are.
    """
    for head in heads:
        for layer in head.modules():
            # Only these classes, since a subclass may compute something else. timm's Linear differs
            # from torch's in TorchScript only.
            if type(layer) in (nn.Linear, timm.layers.Linear):
                layer.__class__ = FullPrecisionLinear
            elif type(layer) is nn.Conv2d:
                layer.__class__ = FullPrecisionConv2d


def unit_norm(features: Tensor) -> Tensor:
    """Features (N, width), each divided by its Euclidean norm, computed without autocast."""
    return without_autocast(_unit_norm, features)


def _unit_norm(features: Tensor) -> Tensor:
    """Features (N, width), each divided by its Euclidean norm."""
    return F.normalize(features, dim=-1)
