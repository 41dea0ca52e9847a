"""Layers without a deterministic gradient on CUDA: torch raises an error in their backward pass.

The list is from the documentation of torch.use_deterministic_algorithms, as far as image networks
have these layers.
"""

from collections.abc import Mapping

import torch
from timm.layers import BlurPool2d
from torch import nn

from rib.base.errors import UserError

WITHOUT_ALGORITHM = (
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReflectionPad3d,
    nn.AdaptiveMaxPool2d,
    nn.FractionalMaxPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool3d,
)
INTERPOLATIONS = ("linear", "bilinear", "bicubic", "trilinear")  # modes of nn.Upsample


def layers_without_algorithm(model: nn.Module) -> list[str]:
    """Names of layers without a deterministic gradient on CUDA, such as ["layer1.pad"].

    Functions that a network calls are not found.
    """
    return [name for name, layer in model.named_modules() if _is_without_algorithm(layer)]


def _is_without_algorithm(layer: nn.Module) -> bool:
    """Whether CUDA has no deterministic gradient for a layer, by torch's documentation."""
    if isinstance(layer, WITHOUT_ALGORITHM):
        return True
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        # torch computes the mean over all positions in another, deterministic way.
        return layer.output_size not in (1, (1, 1))
    if isinstance(layer, nn.Upsample):
        return layer.mode in INTERPOLATIONS
    if isinstance(layer, BlurPool2d):
        return layer.pad_mode == "reflect"
    return False


def refuse_layers_without_algorithm(
    name: str, model: nn.Module, trained: Mapping[str, nn.Parameter], device: torch.device
) -> None:
    """Raise a UserError if the gradient on CUDA passes layers without a deterministic gradient.

    torch's own error names no setting of this workflow.
    """
    may_differ = torch.is_deterministic_algorithms_warn_only_enabled()
    first_parameter = next(model.parameters())
    # If the first parameter is not trained, the gradient may not reach these layers; if it does,
    # torch raises an error.
    passes_through_all = any(parameter is first_parameter for parameter in trained.values())
    if device.type != "cuda" or may_differ or not passes_through_all:
        return
    layers = layers_without_algorithm(model)
    if layers:
        raise UserError(
            f"model {name}: CUDA has no deterministic algorithm for the gradient of "
            f"{', '.join(layers)}; set compute.deterministic to warn in config.yaml, after which a "
            "training gives other numbers each time, or compute.device to cpu."
        )
