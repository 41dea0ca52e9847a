"""Checkpoints hold what fine-tuning changed; a merge is an average of checkpoints, taken when loaded.

Four forms, told apart by the tensors' names, so that a file is enough to restore a run:

    <name>                        a tensor of the state dict, in place of the pretrained one
    <name>.xor                    its bits XOR those of the pretrained one, compressed (see `packed`)
    <name>.lora_A, <name>.lora_B  factors (r, in) and (out, r): B A, in the tensor's shape, is added to it
    input_frame.<side>            a strip of the frame that is added to the input (rib.models.frame)
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import safetensors.torch
import torch
from torch import Tensor, nn

from rib.io import UserError
from rib.models.frame import Frame

XOR = ".xor"
LORA_A, LORA_B = ".lora_A", ".lora_B"
FRAME = "input_frame."
COUNTER = "num_batches_tracked"  # of BatchNorm: plays no part in evaluation, and differs where statistics trained


def changed_tensors(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a state dict that differ from the earlier one, contiguous and on the CPU."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in after.items()
        if not torch.equal(tensor.cpu(), before[name].cpu())
    }


def packed(changes: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Changed tensors in the form in which they are stored, without loss.

    Fine-tuning moves weights little, so that sign, exponent and first digits mostly agree with the pretrained ones: XOR of
    the bits leaves zeros there, and their bytes, the first of all numbers first, compress to less than half (0.39 to 0.50
    for EfficientNet-Lite0 on five emoji sets).

    Args:
        changes: tensors that differ, contiguous and on the CPU.
        start: the pretrained state dict.
    """
    return dict(_packed(name, tensor, start.get(name)) for name, tensor in changes.items())


def _packed(name: str, tensor: Tensor, before: Tensor | None) -> tuple[str, Tensor]:
    if before is None or tensor.dtype != torch.float32 or tensor.shape != before.shape:
        return name, tensor
    bits = tensor.flatten().view(torch.int32) ^ before.cpu().contiguous().flatten().view(torch.int32)
    planes = bits.view(torch.uint8).view(-1, 4).T.contiguous()
    data = pa.compress(planes.numpy().data, codec="zstd", asbytes=True)
    if len(data) >= planes.numel():
        return name, tensor
    return name + XOR, torch.frombuffer(bytearray(data), dtype=torch.uint8)


def unpacked(stored: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `packed`.

    Args:
        stored: a checkpoint's tensors.
        start: the pretrained state dict, on the CPU.

    Raises:
        ValueError: the checkpoint has a tensor that the network lacks.
    """
    return dict(_unpacked(name, tensor, start) for name, tensor in stored.items())


def _unpacked(name: str, tensor: Tensor, start: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    if not name.endswith(XOR):
        return name, tensor
    name = name.removesuffix(XOR)
    if name not in start:
        raise ValueError(f"the checkpoint has a tensor '{name}' that the network lacks")
    before = start[name]
    data = pa.decompress(tensor.numpy().data, 4 * before.numel(), codec="zstd", asbytes=True)
    planes = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(4, -1)
    bits = planes.T.contiguous().view(torch.int32).flatten() ^ before.contiguous().flatten().view(torch.int32)
    return name, bits.view(torch.float32).view(before.shape)


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
        if name.endswith(COUNTER):
            result[name] = max(value for _, value in values)
        elif not start[name].is_floating_point():
            if any(not torch.equal(value, values[0][1]) for _, value in values):
                raise ValueError(f"'{name}' differs between the merged states and is no floating-point number")
            result[name] = values[0][1]
        else:
            total = sum(weight * value.double() for weight, value in values)
            result[name] = total.to(start[name].dtype)
    return result


def apply(model: nn.Module, weights: Mapping[str, float], checkpoints: Mapping[str, Path]) -> nn.Module:
    """Bring a pretrained network to a fine-tuned or merged state.

    Args:
        model: with its pretrained weights; changed in place.
        weights: weight of each part by method; a method without a checkpoint is the pretrained state.
        checkpoints: file of each fine-tuned method.

    Returns:
        The network, with the trained frame before it where the checkpoint has one.

    Raises:
        UserError: a state with a trained frame is to be averaged.
    """
    start = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    stored = {
        method: unpacked(safetensors.torch.load_file(checkpoints[method]), start) if method in checkpoints else {}
        for method, weight in weights.items()
        if weight
    }
    parts = [(weights[method], merged(start, tensors)) for method, tensors in stored.items()]
    frames = {method: frame for method, tensors in stored.items() if (frame := _named(tensors, FRAME))}
    if frames and len(stored) > 1:
        raise UserError(
            f"'{next(iter(frames))}' trains a frame around the input, which can't be averaged with weights."
        )
    state = average(start, parts)
    unknown = sorted(set().union(*(changes for _, changes in parts)) - set(start))
    if unknown:
        raise ValueError(f"the checkpoint has a tensor '{unknown[0]}' that the network lacks")
    model.load_state_dict({**start, **state}, strict=True)
    for strips in frames.values():
        device = next(model.parameters()).device
        return nn.Sequential(OrderedDict(frame=Frame(**strips).to(device), network=model))
    return model


def merged(start: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's changed tensors, low-rank updates added to the pretrained ones; frames are left out."""
    changes = {name: tensor for name, tensor in stored.items() if not name.endswith((LORA_A, LORA_B))}
    changes = {name: tensor for name, tensor in changes.items() if not name.startswith(FRAME)}
    for key in stored:
        if key.endswith(LORA_A):
            name = key.removesuffix(LORA_A)
            update = stored[name + LORA_B] @ stored[key]
            changes[name] = changes.get(name, start[name]) + update.view(start[name].shape)
    return changes


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
