"""Features of a network token by token, before its blocks and after each quarter of its depth."""

import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.models.layers import first_block, quarter_outputs
from rib.models.network import OpenClipClassifier


def token_features(model: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Features at five depths, and the output of `forward_features`, of one pass.

    Tokens are the positions of a feature map, and the class and register tokens of a transformer if
    its library gives them. The first features are the input of the first block (see `first_block`).

    Args:
        images: normalised, (N, 3, H, W).

    Returns:
        For each depth (N, tokens, channels), where both may differ between depths; and the output.

    Raises:
        UserError: The library gives no such features of this network.
    """
    entering: list[Tensor] = []
    hook = first_block(model).register_forward_pre_hook(
        lambda _, inputs: entering.append(inputs[0])
    )
    try:
        quarters, output = quarter_outputs(model, images, class_tokens=True)
    finally:
        hook.remove()
    if not entering:
        raise UserError(f"{type(model).__name__} doesn't call its first block with features.")
    stem = entering[0]
    if stem.ndim == 4:
        stem = stem.flatten(1, 2) if _channels_are_last(model) else _positions_as_tokens(stem)
    return [stem, *(_all_tokens(*quarter) for quarter in quarters)], output


def _channels_are_last(model: nn.Module) -> bool:
    """Whether stages take feature maps (N, h, w, d), as timm's Swin says; otherwise (N, d, h, w)."""
    body = (
        getattr(model.visual, "trunk", model.visual)
        if isinstance(model, OpenClipClassifier)
        else model
    )
    return getattr(body, "output_fmt", "NCHW") == "NHWC"


def _positions_as_tokens(feature_map: Tensor) -> Tensor:
    """Tokens (N, h * w, d) of a feature map (N, d, h, w)."""
    return feature_map.flatten(2).transpose(1, 2)


def _all_tokens(positions: Tensor, class_tokens: Tensor | None) -> Tensor:
    """Tokens (N, T, d) of positions (N, d, h, w) and of class tokens (N, p, d)."""
    tokens = _positions_as_tokens(positions)
    return tokens if class_tokens is None else torch.cat([class_tokens, tokens], dim=1)
