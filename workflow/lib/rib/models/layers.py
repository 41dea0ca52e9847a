"""Features of a network by layer, the same five layers for all architectures.

`stage1` to `stage4` are the outputs after each quarter of the depth, `pre_logits` is the input of
the head. In a hierarchical network, such as a CNN, the quarters are the last four stages in timm's
feature_info, mostly of stride 4, 8, 16 and 32. A plain network of B blocks, such as a ViT, is cut
after blocks B/4, B/2, 3B/4 and B, rounded up, as in Li et al. 2021 (arXiv 2111.11429), who use a
ViT as the backbone in place of a CNN.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from rib.base.errors import UserError
from rib.models.full_precision import unit_norm
from rib.models.network import Classifier, OpenClipClassifier

STAGES = 4
PRE_LOGITS = "pre_logits"


class BlockOutput(NamedTuple):
    """An output inside a network that its library can return."""

    module: str  # name of the module that gives it
    stride: int  # distance of its positions in pixels; constant in a plain transformer


def layers_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Features (N, d) of normalised images (N, 3, H, W) by layer, {"stage1": tensor, ...}.

    They are compared between networks. Stages are averaged over positions, without class and
    register tokens, which makes CNNs and ViTs comparable. The network itself pools `pre_logits`:
    most ViTs take the normalised class token.

    Raises:
        UserError: the library gives no such features of this network.
    """
    network = model
    if hasattr(model, "prompt"):  # a trained padding prompt is part of the run
        images = model.get_submodule("prompt")(images)
        network = model.get_submodule("network")
    stages, features = quarter_outputs(network, images)
    layers = {}
    for number, (feature_map, _) in enumerate(stages, start=1):
        layers[f"stage{number}"] = feature_map.mean(dim=(2, 3))
    classifier = cast(Classifier, network)
    layers[PRE_LOGITS] = classifier.forward_head(features, pre_logits=True).flatten(1)
    return layers


def quarter_outputs(
    model: nn.Module, images: Tensor, class_tokens: bool = False
) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """Outputs after each quarter of the depth, and the output of `forward_features`, in one pass.

    Args:
        images: normalised, (N, 3, H, W).
        class_tokens: whether to return class and register tokens too, if the network has any.

    Returns:
        For each quarter the positions (N, d, h, w) and the class and register tokens (N, p, d) or
        None; and the output of `forward_features`.

    Raises:
        UserError: the library gives no such outputs of this network.
    """
    try:
        indices_of_quarters = [index for index, _ in quarters(model)]
        # With fewer than four blocks, several quarters end at the same output.
        distinct_indices = sorted(set(indices_of_quarters))
        outputs, features = _intermediates(model, images, distinct_indices, class_tokens)
    except AttributeError as error:
        raise UserError(
            f"{type(model).__name__} has no stages that its library supports ({error})."
        ) from error
    output_at = dict(zip(distinct_indices, outputs, strict=True))
    return [output_at[index] for index in indices_of_quarters], features


def quarters(model: nn.Module) -> list[tuple[int, str]]:
    """The library's index, and the module, of the output after each quarter of the depth.

    For a ViT of 12 blocks: [(2, "blocks.2"), (5, "blocks.5"), (8, "blocks.8"), (11, "blocks.11")].
    """
    outputs = _block_outputs(model)
    return [(index, outputs[index].module) for index in _quarter_indices(outputs)]


def first_block(model: nn.Module) -> nn.Module:
    """The first block, whose inputs are the features before all blocks.

    In a hierarchical network it is the first block of the first quarter.
    """
    outputs = _block_outputs(model)
    first_index = 0
    if _differ_in_stride(outputs):
        first_index = _quarter_indices(outputs)[0]
    module = model.get_submodule(outputs[first_index].module)
    # Gradient checkpointing calls the layers of a sequence, not the sequence itself.
    while isinstance(module, nn.Sequential):
        module = module[0]
    return module


def is_hierarchical(model: nn.Module) -> bool:
    """Whether feature maps have several sizes, as in a CNN or Swin; false for a plain ViT."""
    return _differ_in_stride(_block_outputs(model))


def _block_outputs(model: nn.Module) -> list[BlockOutput]:
    """In the order of the forward pass: [BlockOutput("blocks.0", 16), ...] for a ViT."""
    if not isinstance(model, OpenClipClassifier):
        return _outputs_of_body(model)
    # `trunk` is a network of timm as open_clip's image tower.
    name_of_body = "visual.trunk" if hasattr(model.visual, "trunk") else "visual"
    body = model.get_submodule(name_of_body)
    outputs = []
    for output in _outputs_of_body(body):
        outputs.append(BlockOutput(f"{name_of_body}.{output.module}", output.stride))
    return outputs


def _outputs_of_body(body: nn.Module) -> list[BlockOutput]:
    """Like `_block_outputs`, with names of modules inside `body`."""
    if hasattr(body, "feature_info"):  # timm
        feature_info: Any = body.feature_info
        return [BlockOutput(entry["module"], entry["reduction"]) for entry in feature_info]
    if hasattr(body, "transformer"):  # open_clip's ViT
        blocks = body.get_submodule("transformer.resblocks").children()
        names = [f"transformer.resblocks.{number}" for number, _ in enumerate(blocks)]
        return [BlockOutput(name, 1) for name in names]
    # open_clip's ResNet: the stem and four stages.
    return [
        BlockOutput("conv1", 2),
        BlockOutput("layer1", 4),
        BlockOutput("layer2", 8),
        BlockOutput("layer3", 16),
        BlockOutput("layer4", 32),
    ]


def _differ_in_stride(outputs: Sequence[BlockOutput]) -> bool:
    """True for a CNN with its stages; false for a plain ViT."""
    strides = {output.stride for output in outputs}
    return len(strides) > 1


def _quarter_indices(outputs: Sequence[BlockOutput]) -> list[int]:
    """Positions in `outputs` of each quarter's end.

    [2, 5, 8, 11] for a plain network of 12 blocks; the last four of a hierarchical network.
    """
    blocks = len(outputs)
    if _differ_in_stride(outputs):
        first_index = max(0, blocks - STAGES)
        return list(range(first_index, blocks))
    return [math.ceil(quarter * blocks / STAGES) - 1 for quarter in range(1, STAGES + 1)]


def _intermediates(
    model: nn.Module, images: Tensor, indices: Sequence[int], class_tokens: bool
) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """Outputs of the blocks at `indices`, and the output of `forward_features`.

    An output is positions (N, d, h, w), and class tokens (N, p, d) or None.
    """
    if isinstance(model, OpenClipClassifier):
        return _open_clip_intermediates(model.visual, images, indices, class_tokens)
    options = {}
    if class_tokens and _gives_class_tokens(model):
        options["return_prefix_tokens"] = True
    forward_intermediates = _forward_intermediates(model)
    features, outputs = forward_intermediates(images, indices=list(indices), **options)
    outputs_with_tokens = []
    for output in outputs:
        if isinstance(output, tuple):
            outputs_with_tokens.append(output)
        else:  # only positions
            outputs_with_tokens.append((output, None))
    return outputs_with_tokens, features


def _forward_intermediates(network: nn.Module) -> Callable:
    # A method of timm's networks and open_clip's towers; an AttributeError without it.
    return cast(Callable, network.forward_intermediates)


def _open_clip_intermediates(
    tower: nn.Module, images: Tensor, indices: Sequence[int], class_tokens: bool
) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """`_intermediates` for an open_clip image tower, whose features are divided by their norm."""
    options = {}
    if class_tokens and _gives_class_tokens(tower):
        options["output_extra_tokens"] = True
    outputs = _forward_intermediates(tower)(images, indices=list(indices), **options)
    positions = outputs["image_intermediates"]
    tokens = outputs.get("image_intermediates_prefix")
    if not tokens:
        tokens = [None] * len(positions)
    features = unit_norm(outputs["image_features"])
    return list(zip(positions, tokens, strict=True)), features


def _gives_class_tokens(network: nn.Module) -> bool:
    """Whether a network of timm or a tower of open_clip has an option to return class tokens."""
    # Some towers of open_clip wrap a network of timm, their `trunk`, which does the work.
    body = getattr(network, "trunk", network)
    parameters = inspect.signature(_forward_intermediates(body)).parameters
    timm_has_option = "return_prefix_tokens" in parameters
    open_clip_has_option = "output_extra_tokens" in parameters
    return timm_has_option or open_clip_has_option
