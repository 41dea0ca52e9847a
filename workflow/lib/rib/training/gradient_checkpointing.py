"""Gradient checkpointing: less memory for more time."""

from contextlib import suppress
from typing import Any

from torch import nn

from rib.methods.base import FineTuning


def checkpoint_gradients(model: nn.Module, method: FineTuning) -> None:
    """Switch on the network's gradient checkpointing: the backward pass recomputes activations.

    Raises:
        ValueError: the network doesn't support it, or the method would update BatchNorm statistics
            in both passes.
    """
    if method.normalises_by_batch(model):
        raise ValueError(
            "BatchNorm statistics would be updated twice; "
            "set compute.gradient_checkpointing to false"
        )
    # `visual` is open_clip's image tower; timm's networks have none.
    network: Any = getattr(model, "visual", model)
    with suppress(AttributeError, AssertionError):  # from networks that don't support it
        network.set_grad_checkpointing()
    if not any(getattr(layer, "grad_checkpointing", False) for layer in model.modules()):
        raise ValueError(
            "the network has no gradient checkpointing; set compute.gradient_checkpointing to false"
        )
