"""Layers that ignore autocast, such as the layer that gives the logits.

bf16 has 8 significant bits. Logits from 8 to 16 would be multiples of 1/16, and logits from 16 to
32, as CLIP's, multiples of 1/8: classes would tie, and the first of them would win.
"""

from collections.abc import Callable, Iterable

import timm.layers
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def without_autocast(function: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Call a function without autocast: with features in float32 if autocast is on."""
    device_type = features.device.type
    if not torch.is_autocast_enabled(device_type):
        return function(features)
    with torch.autocast(device_type, enabled=False):
        return function(features.float())


class FullPrecisionLinear(nn.Linear):
    """A linear layer for logits: float32 under autocast, since in bf16 classes would tie."""

    def forward(self, features: Tensor) -> Tensor:
        return without_autocast(super().forward, features)


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution for logits, like FullPrecisionLinear."""

    def forward(self, features: Tensor) -> Tensor:
        return without_autocast(super().forward, features)


def keep_precision(heads: Iterable[nn.Module]) -> None:
    """Make the linear layers and convolutions of heads compute logits in float32, in place."""
    for head in heads:
        for layer in head.modules():
            # Exactly these classes: a subclass may compute something else. timm's Linear differs
            # from torch's only in TorchScript.
            if type(layer) in (nn.Linear, timm.layers.Linear):
                layer.__class__ = FullPrecisionLinear
            elif type(layer) is nn.Conv2d:
                layer.__class__ = FullPrecisionConv2d


def unit_norm(features: Tensor) -> Tensor:
    """Features (N, width), each divided by its Euclidean norm, without autocast."""
    return without_autocast(_unit_norm, features)


def _unit_norm(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)
