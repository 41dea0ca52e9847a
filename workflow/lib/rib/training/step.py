"""One step of the optimiser: loss, gradients and update."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from rib.methods.base import FineTuning
from rib.models import device as devices
from rib.models.class_logits import class_logits
from rib.training.training_settings import TrainingSettings


def take_step(
    method: FineTuning, optimizer: Optimizer, batch: np.ndarray, training: TrainingSettings
) -> Tensor:
    """Take one step on a batch, given as rows (N,) of the target.

    Returns:
        One tensor (4,): loss, cross-entropy (with label smoothing) and accuracy (0 to 1) of the
        batch before the step, and the norm of its gradient before clipping.
    """
    optimizer.zero_grad()
    # Gradients of micro-batches add up to the gradient of the batch, since losses and penalties are
    # means over images or don't depend on them.
    means = torch.zeros(3, dtype=torch.float64, device=method.images.device)
    for rows in micro_batches([batch], training.micro):
        loss, cross_entropy, accuracy = compute_loss(method, rows, training)
        share = len(rows) / len(batch)
        if share == 1:
            loss.backward()
        else:
            (loss * share).backward()
        means += share * torch.stack([loss.detach(), cross_entropy.detach(), accuracy])
    parameters = _parameters_of(optimizer)
    give_gradients_strides_of(parameters)
    norm = _clip_gradients(parameters, training.clip_norm)
    method.update(optimizer)
    return torch.cat([means, norm.to(means).view(1)])


class BatchMeans(NamedTuple):
    """Scalars of a batch or a part of it, means over its images."""

    loss: Tensor  # with gradient
    cross_entropy: Tensor  # with label smoothing, with gradient
    accuracy: Tensor  # 0 to 1


def compute_loss(method: FineTuning, rows: np.ndarray, training: TrainingSettings) -> BatchMeans:
    """The loss of a step: the method's error plus its penalty.

    The error is the cross-entropy, unless the method replaces it; the penalty is 0, or what holds
    the method back, such as a distance from the start.

    Args:
        rows: (n,) numbers of the target's images in the batch.
    """
    images = method.images
    # Copied to the GPU before the forward pass, for which the copy would otherwise wait.
    labels = images.labels_of(rows)
    with devices.autocast(method.images.device):
        logits = method.logits(rows)
    logits = logits.float()
    scores = class_logits(logits, images.members)  # `members`: the outputs of each class
    cross_entropy = F.cross_entropy(scores, labels, label_smoothing=training.label_smoothing)
    loss = method.error(rows, cross_entropy) + method.penalty(rows, logits)
    accuracy = (scores.detach().argmax(dim=1) == labels).float().mean()
    return BatchMeans(loss, cross_entropy, accuracy)


def micro_batches(batches: Iterable[np.ndarray], size: int) -> list[np.ndarray]:
    """Parts of batches that fit into memory: with size 2, [4 0 2] gives [4 0] and [2]."""
    parts = []
    for batch in batches:
        for start in range(0, len(batch), size):
            parts.append(batch[start : start + size])
    return parts


def _parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    parameters: list[nn.Parameter] = []
    for group in optimizer.param_groups:
        parameters.extend(group["params"])
    return parameters


def give_gradients_strides_of(parameters: Iterable[nn.Parameter]) -> None:
    """Give gradients the memory layout of their parameters, in place.

    CUDA's fused optimisers refuse other layouts (github.com/pytorch/pytorch/issues/106951), such as
    a class token's gradient for a single image, which is a slice of the gradient of all tokens.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(gradient)


def _clip_gradients(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> Tensor:
    """Scale gradients in place to at most `clip_norm`; return their norm before, a scalar."""
    if clip_norm is not None:
        return nn.utils.clip_grad_norm_(parameters, clip_norm)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients)
