"""One step of the optimiser: loss, gradients and update."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from rib.methods.base import Contrastive, FineTuning, Pairs
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
    if isinstance(method, Contrastive) and training.micro < len(batch):
        means = _propagate_back_in_two_passes(method, batch, training)
    else:
        means = _propagate_back(method, batch, training)
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


def _propagate_back(method: FineTuning, batch: np.ndarray, training: TrainingSettings) -> Tensor:
    """Add the batch's gradient to the parameters; gives the means (3,) of BatchMeans."""
    # Gradients of micro-batches add up to the gradient of the batch, since losses and penalties are
    # means over images or don't depend on them.
    means = torch.zeros(3, dtype=torch.float64, device=method.images.device)
    for rows in micro_batches([batch], training.micro):
        part = compute_loss(method, rows, training)
        share = len(rows) / len(batch)
        if share == 1:
            part.loss.backward()
        else:
            (part.loss * share).backward()
        means += share * _values(part)
    return means


def _propagate_back_in_two_passes(
    method: Contrastive, batch: np.ndarray, training: TrainingSettings
) -> Tensor:
    """`_propagate_back` for a loss of all pairs of a batch, in micro-batches.

    The first pass computes the features of all micro-batches without gradient. The batch's loss
    then has a gradient at each feature. The second pass computes the features again, with the same
    random numbers, and propagates these gradients back, which is the chain rule.

    Source: Gao et al. 2021 (arXiv 2101.06983), section 3.
    """
    device = method.images.device
    parts = micro_batches([batch], training.micro)
    captions_of_parts = method.captions(batch).split(training.micro)
    random_states, pairs_of_parts, taught_of_parts = [], [], []
    for rows, captions in zip(parts, captions_of_parts, strict=True):
        random_states.append(devices.random_state(device))
        with torch.no_grad():
            pairs_of_parts.append(method.encode(rows, captions))
            taught = method.teach(rows, captions)
        if taught is not None:
            taught_of_parts.append(taught)
    pairs = _joined(pairs_of_parts)
    for features in pairs:
        features.requires_grad_()
    labels = method.images.labels_of(batch)
    with devices.autocast(device):
        logits = method.logits_of(pairs, _joined(taught_of_parts) if taught_of_parts else None)
    whole = _means_of(method, batch, labels, logits, training)
    whole.loss.backward()
    assert pairs.images.grad is not None and pairs.captions.grad is not None
    gradients_of_images = pairs.images.grad.split(training.micro)
    gradients_of_captions = pairs.captions.grad.split(training.micro)
    # After the step, random numbers go on as after the first pass.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for i, rows in enumerate(parts):
            devices.restore_random_state(random_states[i], device)
            pairs_of_part = method.encode(rows, captions_of_parts[i])
            gradients = [gradients_of_images[i], gradients_of_captions[i]]
            torch.autograd.backward(list(pairs_of_part), gradients)
    return _values(whole).double()


def _joined(parts: Sequence[Pairs]) -> Pairs:
    """Features of a batch from those of its parts."""
    return Pairs(
        images=torch.cat([part.images for part in parts]),
        captions=torch.cat([part.captions for part in parts]),
    )


def compute_loss(method: FineTuning, rows: np.ndarray, training: TrainingSettings) -> BatchMeans:
    """The loss of a step: the method's error plus its penalty.

    The error is the cross-entropy, unless the method replaces it; the penalty is 0, or what holds
    the method back, such as a distance from the start.

    Args:
        rows: (n,) numbers of the target's images in the batch.
    """
    # Copied to the GPU before the forward pass, for which the copy would otherwise wait.
    labels = method.images.labels_of(rows)
    with devices.autocast(method.images.device):
        logits = method.logits(rows)
    return _means_of(method, rows, labels, logits, training)


def _means_of(
    method: FineTuning,
    rows: np.ndarray,
    labels: Tensor,
    logits: Tensor,
    training: TrainingSettings,
) -> BatchMeans:
    """`compute_loss` after the method's logits (n, outputs)."""
    logits = logits.float()
    # `members`: the outputs of each class
    scores = class_logits(logits, method.images.members)
    cross_entropy = F.cross_entropy(scores, labels, label_smoothing=training.label_smoothing)
    loss = method.error(rows, cross_entropy) + method.penalty(rows, logits)
    accuracy = (scores.detach().argmax(dim=1) == labels).float().mean()
    return BatchMeans(loss, cross_entropy, accuracy)


def _values(means: BatchMeans) -> Tensor:
    """Loss, cross-entropy and accuracy, (3,), without gradient."""
    return torch.stack([mean.detach() for mean in means])


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
