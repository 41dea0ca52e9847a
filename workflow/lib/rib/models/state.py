"""The network of a run in a given state, ready for inference."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fuse_batch_norm import fuse_batch_norm
from rib.models.network import load


def network_in_state(
    folder: Path, weights: Mapping[str, float], checkpoints: Mapping[str, Path], example: Tensor, device: torch.device
) -> nn.Module:
    """The network in one state, in evaluation mode.

    Args:
        folder: output folder of the models job.
        weights: weight of each averaged method (see rib.evaluation.recipes.run_states).
        checkpoints: checkpoint of each fine-tuned method.
        example: (N, 3, H, W) input to check the fused network.
        device: device of the network.
    """
    model = apply(load(folder, device)[0], weights, checkpoints).eval()
    if device.type == "cpu":  # on a GPU the gain is small, and bf16 rounds the fused weights again
        fuse_batch_norm(model, example)
    return devices.compiled(model)
