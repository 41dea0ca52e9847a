"""Features of a network by layer: one vector per image.

The layers are the same for all architectures: `stage1` to `stage4`, the output after each quarter of the network's
depth, and `pre_logits`, the input of the head. In a hierarchical network the quarters are the last four stages in timm's
feature_info, mostly of stride 4, 8, 16 and 32. A plain network of B blocks, such as a ViT, is cut after blocks B/4, B/2,
3B/4 and B, rounded up, as in Li et al. 2021 (arXiv 2111.11429), which uses a ViT as the backbone in place of a CNN. A
stage's output is averaged over positions without class and register tokens, so that CNNs and ViTs are comparable.
`pre_logits` is pooled by the network itself (in most ViTs: the normalised class token).
"""

import inspect
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.models.network import OpenClipClassifier

STAGES = 4
PRE_LOGITS = "pre_logits"


def layers_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Features (N, d) of normalised images (N, 3, H, W) by layer, in order; a UserError if the library gives none."""
    if hasattr(model, "prompt"):  # a trained padding prompt is part of the run
        images, model = model.prompt(images), model.network
    stages, features = quarter_outputs(model, images)
    found = {
        f"stage{number}": stage.mean(dim=(2, 3))
        for number, (stage, _) in enumerate(stages, start=1)
    }
    return {**found, PRE_LOGITS: model.forward_head(features, pre_logits=True).flatten(1)}


def quarter_outputs(
    model: nn.Module, images: Tensor, class_tokens: bool = False
) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """Outputs after each quarter of the depth, and the output of `forward_features`, of one pass.

    Args:
        images: normalised, (N, 3, H, W).
        class_tokens: whether to return class and register tokens too, if the network has any.

    Returns:
        For each quarter the positions (N, d, h, w), and the class and register tokens (N, p, d) or
        None; and the features.

    Raises:
        UserError: The library gives no such outputs of this network.
    """
    try:
        places = [place for place, _ in quarters(model)]
        distinct = sorted(set(places))
        outputs, features = _intermediates(model, images, distinct, class_tokens)
    except AttributeError as error:
        raise UserError(
            f"{type(model).__name__} has no stages that its library supports ({error})."
        ) from error
    output_at = dict(zip(distinct, outputs, strict=True))
    return [output_at[place] for place in places], features


def quarters(model: nn.Module) -> list[tuple[int, str]]:
    """Library index of the output after each quarter of the depth, and the name of the module that gives it."""
    outputs = _outputs(model)
    return [(place, outputs[place][0]) for place in _quarter_places(outputs)]


def first_block(model: nn.Module) -> nn.Module:
    """The module that the stem's output enters: the first block, or of a hierarchical network its first quarter's.

    Of a module that is a sequence it is the first part, since gradient checkpointing calls only the parts.
    """
    outputs = _outputs(model)
    place = _quarter_places(outputs)[0] if _differ_in_stride(outputs) else 0
    module = model.get_submodule(outputs[place][0])
    while isinstance(module, nn.Sequential):
        module = module[0]
    return module


def is_hierarchical(model: nn.Module) -> bool:
    """Whether stages have feature maps of several sizes, as in a CNN or Swin; not so in a plain transformer."""
    return _differ_in_stride(_outputs(model))


def _outputs(model: nn.Module) -> list[tuple[str, int]]:
    """Module and stride of each output that the library gives, in order."""
    body, prefix = model, ""
    if isinstance(model, OpenClipClassifier):
        # a tower from timm, or open_clip's own
        prefix = "visual.trunk." if hasattr(model.visual, "trunk") else "visual."
        body = model.get_submodule(prefix[:-1])
    if hasattr(body, "feature_info"):
        outputs = [(entry["module"], entry["reduction"]) for entry in body.feature_info]
    elif hasattr(body, "transformer"):  # open_clip's ViT
        outputs = [
            (f"transformer.resblocks.{block}", 1)
            for block in range(len(body.transformer.resblocks))
        ]
    else:  # the stem and four stages of its ResNet
        outputs = [("conv1", 2), ("layer1", 4), ("layer2", 8), ("layer3", 16), ("layer4", 32)]
    return [(prefix + name, stride) for name, stride in outputs]


def _differ_in_stride(outputs: Sequence[tuple[str, int]]) -> bool:
    return len({stride for _, stride in outputs}) > 1


def _quarter_places(outputs: Sequence[tuple[str, int]]) -> list[int]:
    """Indices of the outputs after each quarter of the depth."""
    blocks = len(outputs)
    if _differ_in_stride(outputs):
        return list(range(max(0, blocks - STAGES), blocks))
    return [math.ceil(quarter * blocks / STAGES) - 1 for quarter in range(1, STAGES + 1)]


def _intermediates(
    model: nn.Module, images: Tensor, places: Sequence[int], class_tokens: bool
) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """Positions (N, d, h, w) and class tokens (N, p, d) or None at given places; the output of `forward_features`."""
    if isinstance(model, OpenClipClassifier):
        tower = model.visual
        asked = {"output_extra_tokens": True} if class_tokens and _gives_class_tokens(tower) else {}
        found = tower.forward_intermediates(images, indices=list(places), **asked)
        positions = found["image_intermediates"]
        tokens = found.get("image_intermediates_prefix") or [None] * len(positions)
        return list(zip(positions, tokens, strict=True)), F.normalize(
            found["image_features"], dim=-1
        )
    asked = {"return_prefix_tokens": True} if class_tokens and _gives_class_tokens(model) else {}
    features, stages = model.forward_intermediates(images, indices=list(places), **asked)
    return [stage if isinstance(stage, tuple) else (stage, None) for stage in stages], features


def _gives_class_tokens(network: nn.Module) -> bool:
    """Whether a network of timm or a tower of open_clip can return class tokens too; its network of timm must, if any."""
    given = inspect.signature(getattr(network, "trunk", network).forward_intermediates).parameters
    return "return_prefix_tokens" in given or "output_extra_tokens" in given
