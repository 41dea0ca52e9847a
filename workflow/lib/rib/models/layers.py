"""Features of a network by layer: one vector per image.

The layers are the same for all architectures: `stage1` to `stage4`, the output after each quarter of the network's
depth, and `pre_logits`, the input of the head. In a hierarchical network the quarters are the last four stages in timm's
feature_info, mostly of stride 4, 8, 16 and 32. A plain network of B blocks, such as a ViT, is cut after blocks B/4, B/2,
3B/4 and B, rounded up, as in Li et al. 2021 (arXiv 2111.11429), which uses a ViT as the backbone in place of a CNN. A
stage's output is averaged over positions without class and register tokens, so that CNNs and ViTs are comparable.
`pre_logits` is pooled by the network itself (in most ViTs: the normalised class token).
"""

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
    return layers_and_output(model, images)[0]


def layers_and_output(model: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What `layers_of` returns, and the output of `forward_features` from the same forward pass."""
    try:
        places = [place for place, _ in quarters(model)]
        stages, features = _intermediates(model, images, sorted(set(places)))
    except AttributeError as error:
        raise UserError(f"{type(model).__name__} has no stages that its library supports ({error}).") from error
    outputs = dict(zip(sorted(set(places)), stages, strict=True))
    found = {f"stage{number}": outputs[place].mean(dim=(2, 3)) for number, place in enumerate(places, start=1)}
    return {**found, PRE_LOGITS: model.forward_head(features, pre_logits=True).flatten(1)}, features


def quarters(model: nn.Module) -> list[tuple[int, str]]:
    """Library index of the output after each quarter of the depth, and the name of the module that gives it."""
    body, prefix = model, ""
    if isinstance(model, OpenClipClassifier):
        # a tower from timm, or open_clip's own
        prefix = "visual.trunk." if hasattr(model.visual, "trunk") else "visual."
        body = model.get_submodule(prefix[:-1])
    if hasattr(body, "feature_info"):
        outputs = [(entry["module"], entry["reduction"]) for entry in body.feature_info]
    elif hasattr(body, "transformer"):  # open_clip's ViT
        outputs = [(f"transformer.resblocks.{block}", 1) for block in range(len(body.transformer.resblocks))]
    else:  # the stem and four stages of its ResNet
        outputs = [("conv1", 2), ("layer1", 4), ("layer2", 8), ("layer3", 16), ("layer4", 32)]
    blocks = len(outputs)
    if len({stride for _, stride in outputs}) > 1:
        places = range(max(0, blocks - STAGES), blocks)
    else:
        places = [math.ceil(quarter * blocks / STAGES) - 1 for quarter in range(1, STAGES + 1)]
    return [(place, prefix + outputs[place][0]) for place in places]


def _intermediates(model: nn.Module, images: Tensor, places: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Outputs at the given places, (N, d, h, w) each, and the output of `forward_features`."""
    if isinstance(model, OpenClipClassifier):
        found = model.visual.forward_intermediates(images, indices=list(places))
        return found["image_intermediates"], F.normalize(found["image_features"], dim=-1)
    features, stages = model.forward_intermediates(images, indices=list(places))
    return stages, features
