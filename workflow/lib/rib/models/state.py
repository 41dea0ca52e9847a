"""The network of a run, in the state that its recipe or checkpoint says, ready to pass images through."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fold import fold_batch_norm
from rib.models.pretrained import load


def network_in_state(
    folder: Path, weights: Mapping[str, float], checkpoints: Mapping[str, Path], example: Tensor, device: torch.device
) -> nn.Module:
    """The network in one state, in evaluation mode.

    Args:
        folder: what a models job wrote.
        weights: of each averaged method (see rib.merge.run_states).
        checkpoints: file of each fine-tuned method.
        example: (N, 3, H, W) input with which folding is checked.
        device: where it goes.
    """
    model = apply(load(folder, device)[0], weights, checkpoints).eval()
    if device.type == "cpu":  # on a GPU it gains little, and rounds weights anew in bf16
        fold_batch_norm(model, example)
    return devices.compiled(model)
