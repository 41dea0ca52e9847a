"""Features of a network token by token, before its blocks and after each quarter of its depth."""

import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.models.layers import first_block, quarter_outputs
from rib.models.network import OpenClipClassifier


def token_features(model: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Features at five depths, for LDIFS, and the output of `forward_features`, in one pass.

    The depths are the input of the first block and the outputs after each quarter of the network.
    Tokens are the positions of a feature map, and a transformer's class and register tokens if its
    library gives them.

    Args:
        images: normalised, (N, 3, H, W).

    Returns:
        Features (N, tokens, channels) of each depth, in sizes that may differ; and the output.

    Raises:
        UserError: the library gives no such features of this network.
    """
    block_inputs: list[Tensor] = []

    def note_input(block: nn.Module, inputs: tuple[Tensor]) -> None:
        block_inputs.append(inputs[0])

    hook = first_block(model).register_forward_pre_hook(note_input)
    try:
        quarters, output = quarter_outputs(model, images, class_tokens=True)
    finally:
        hook.remove()
    if not block_inputs:
        raise UserError(f"{type(model).__name__} doesn't call its first block with features.")
    depths = [_stem_tokens(model, block_inputs[0])]
    for positions, class_tokens in quarters:
        depths.append(_all_tokens(positions, class_tokens))
    return depths, output


def _stem_tokens(model: nn.Module, stem_output: Tensor) -> Tensor:
    """Tokens (N, T, d) before all blocks; `stem_output` is such tokens or a feature map."""
    if stem_output.ndim != 4:
        return stem_output
    if _channels_are_last(model):
        return stem_output.flatten(1, 2)
    return _positions_as_tokens(stem_output)


def _channels_are_last(model: nn.Module) -> bool:
    """Whether feature maps are (N, h, w, d), as in timm's Swin; else they are (N, d, h, w)."""
    body = model
    if isinstance(model, OpenClipClassifier):
        body = getattr(model.visual, "trunk", model.visual)
    return getattr(body, "output_fmt", "NCHW") == "NHWC"


def _positions_as_tokens(feature_map: Tensor) -> Tensor:
    """From (N, d, h, w) to (N, h * w, d)."""
    return feature_map.flatten(2).transpose(1, 2)


def _all_tokens(positions: Tensor, class_tokens: Tensor | None) -> Tensor:
    """Positions (N, d, h, w) and class tokens (N, p, d) give tokens (N, p + h * w, d)."""
    tokens = _positions_as_tokens(positions)
    if class_tokens is None:
        return tokens
    return torch.cat([class_tokens, tokens], dim=1)
