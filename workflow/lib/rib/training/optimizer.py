"""Optimisers, by timm's factory."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from rib.base.errors import UserError
from rib.methods.base import FineTuning
from rib.training.settings import TrainingSettings

# timm's names; its `sgd` has Nesterov momentum.
OPTIMIZERS = {"sgd": "momentum", "adamw": "adamw", "lion": "lion"}
FUSED = ("sgd", "adamw")  # with a fused CUDA kernel


def make_optimizer(
    method: FineTuning, training: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Optimiser of a method's trained parameters, which alone require gradients.

    A group's learning rate is that of the schedule times its `lr_scale`, if it has one.

    Raises:
        UserError: the recipe distinguishes layers or norms, but the method trains parameters
            outside the network.
    """
    trained = dict(method.trainable())
    model_or_parameters: nn.Module | list[nn.Parameter] = list(trained.values())
    distinguishes_parts = training.layer_decay is not None or not training.decay_norm_and_bias
    if distinguishes_parts:
        parameters_of_network = dict(method.model.named_parameters())
        if not trained.keys() <= parameters_of_network.keys():
            raise UserError(
                "a recipe with layer_decay, or decay_norm_and_bias false, treats parts of the "
                "network differently, but the method trains parameters outside of it; choose "
                "another recipe."
            )
        # timm tells the parts by the network; it takes those parameters that require gradients.
        model_or_parameters = method.model
    # Many small tensors at once: the same values as one by one, with fewer calls.
    options: dict[str, Any] = {"foreach": True}
    if device.type == "cuda" and training.optimizer in FUSED:
        options = {"fused": True}
    return create_optimizer_v2(
        model_or_parameters,
        OPTIMIZERS[training.optimizer],
        lr=method.lr,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
        filter_bias_and_bn=not training.decay_norm_and_bias,
        layer_decay=training.layer_decay,
        **options,
    )
