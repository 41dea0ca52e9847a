"""Checkpoints hold what fine-tuning changed; a merge is an average of checkpoints, taken when loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn


def changed_tensors(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a state dict that differ from the earlier one, contiguous and on the CPU."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in after.items()
        if not torch.equal(tensor.cpu(), before[name].cpu())
    }


def average(start: Mapping[str, Tensor], parts: Sequence[tuple[float, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Weighted average of model states given as changes to a common start.

    Args:
        start: the pretrained state dict.
        parts: (weight, changed tensors) of each state; the weights add up to 1, and the pretrained state itself
            is a part without changes.

    Returns:
        The tensors of the average that may differ from the start. A weight of 1 gives that state exactly, and
        equal states average to themselves, since the sum is taken in double precision.

    Raises:
        ValueError: the weights don't add up to 1, or a tensor that is no floating-point number differs.
    """
    if abs(sum(weight for weight, _ in parts) - 1) > 1e-9:
        raise ValueError(f"the weights of an average must add up to 1, got {[weight for weight, _ in parts]}")
    parts = [(weight, changes) for weight, changes in parts if weight]
    names = {name for _, changes in parts for name in changes}
    result = {}
    for name in (name for name in start if name in names):
        values = [(weight, changes.get(name, start[name])) for weight, changes in parts]
        if not start[name].is_floating_point():
            if any(not torch.equal(value, values[0][1]) for _, value in values):
                raise ValueError(f"'{name}' differs between the merged states and is no floating-point number")
            result[name] = values[0][1]
        else:
            total = sum(weight * value.double() for weight, value in values)
            result[name] = total.to(start[name].dtype)
    return result


def apply(model: nn.Module, weights: Mapping[str, float], checkpoints: Mapping[str, Path]) -> None:
    """Bring a pretrained network to a fine-tuned or merged state.

    Args:
        model: with its pretrained weights.
        weights: weight of each part by method; a method without a checkpoint is the pretrained state.
        checkpoints: file of each fine-tuned method.
    """
    start = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    parts = [
        (weight, safetensors.torch.load_file(checkpoints[method]) if method in checkpoints else {})
        for method, weight in weights.items()
    ]
    state = average(start, parts)
    unknown = sorted(set().union(*(changes for _, changes in parts)) - set(start))
    if unknown:
        raise ValueError(f"the checkpoint has a tensor '{unknown[0]}' that the network lacks")
    model.load_state_dict({**start, **state}, strict=True)
