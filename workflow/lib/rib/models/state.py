"""The network of a run in a given state, ready for inference."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from rib.config.run import ENSEMBLE
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fuse_batch_norm import EXAMPLE, fuse_batch_norm
from rib.models.images import Images
from rib.models.merge import Merge, Weights
from rib.models.network import load


def network_in_state(
    folder: Path, weights: Weights, checkpoints: Mapping[str, Path], images: Images
) -> nn.Module:
    """A network with the weights of a run, in evaluation mode, ready for the given images.

    Args:
        folder: output of the models job, with the network and its pretrained weights.
        weights, checkpoints: see rib.models.checkpoint.apply, also for errors.
    """
    pretrained, _ = load(folder, images.device)
    model = apply(pretrained, weights, checkpoints).eval()
    return for_inference(model, weights, images)


def for_inference(model: nn.Module, weights: Weights, images: Images) -> nn.Module:
    """A network in evaluation mode, changed in place so that it scores the given images faster.

    Args:
        weights: what the network's weights were made of.
    """
    # The networks of an ensemble may use each other's weights.
    is_ensemble = isinstance(weights, Merge) and weights.form == ENSEMBLE
    # On a GPU the gain is small, and bf16 rounds the fused weights again.
    if images.device.type == "cpu" and not is_ensemble:
        fuse_batch_norm(model, images[slice(EXAMPLE)])
    return devices.compiled(model)
