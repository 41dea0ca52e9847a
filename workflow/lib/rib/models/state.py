"""The network of a run in a given state, ready for inference."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from rib.config.run import ENSEMBLE
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fuse_batch_norm import EXAMPLE, fuse_batch_norm
from rib.models.inputs import Inputs
from rib.models.merge import Merge, Weights
from rib.models.network import load


def network_in_state(
    folder: Path, weights: Weights, checkpoints: Mapping[str, Path], inputs: Inputs
) -> nn.Module:
    """The network of a models job in one state (see `apply`), in evaluation mode, for the given inputs."""
    model = apply(load(folder, inputs.device)[0], weights, checkpoints).eval()
    return for_inference(model, weights, inputs)


def for_inference(model: nn.Module, weights: Weights, inputs: Inputs) -> nn.Module:
    """A network in evaluation mode, changed in place so that it scores the given inputs faster.

    Args:
        weights: what the network's state was made of.
    """
    several = (
        isinstance(weights, Merge) and weights.form == ENSEMBLE
    )  # they may use each other's weights
    # On a GPU the gain is small, and bf16 rounds the fused weights again.
    if inputs.device.type == "cpu" and not several:
        fuse_batch_norm(model, inputs[slice(EXAMPLE)])
    return devices.compiled(model)
