"""Checkpoints store what fine-tuning changed; a merge averages checkpoints when it is loaded.

The name of a tensor gives one of four forms, so that the file is enough to restore a run:

    <name>                        replaces the pretrained tensor
    <name>.xor                    its bits XOR those of the pretrained tensor, compressed (see `xor_compress`)
    <name>.lora_A, <name>.lora_B  factors (r, in) and (out, r); B A, in the tensor's shape, is added to it
    padding_prompt.<side>         a strip of the padding prompt (rib.models.padding_prompt)
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.models.padding_prompt import PaddingPrompt

XOR = ".xor"
LORA_A, LORA_B = ".lora_A", ".lora_B"
PROMPT = "padding_prompt."
COUNTER = "num_batches_tracked"  # of BatchNorm: unused in evaluation, and differs if statistics were updated


def changed_tensors(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a state dict that differ from an earlier one, contiguous and on the CPU."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in after.items()
        if not torch.equal(tensor.cpu(), before[name].cpu())
    }


def xor_compress(changes: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compress changed tensors, contiguous and on the CPU, without loss.

    Fine-tuning changes weights little, so sign, exponent and leading digits mostly equal the pretrained ones, and XOR
    gives zeros there. Grouped by position, the bytes compress to at most half (0.39 to 0.50 for EfficientNet-Lite0 on
    five emoji sets).
    """
    return dict(_compress(name, tensor, start.get(name)) for name, tensor in changes.items())


def _compress(name: str, tensor: Tensor, before: Tensor | None) -> tuple[str, Tensor]:
    if before is None or tensor.dtype != torch.float32 or tensor.shape != before.shape:
        return name, tensor
    bits = tensor.flatten().view(torch.int32) ^ before.cpu().contiguous().flatten().view(torch.int32)
    planes = bits.view(torch.uint8).view(-1, 4).T.contiguous()
    data = pa.compress(planes.numpy().data, codec="zstd", asbytes=True)
    if len(data) >= planes.numel():
        return name, tensor
    return name + XOR, torch.frombuffer(bytearray(data), dtype=torch.uint8)


def xor_decompress(stored: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `xor_compress` for a checkpoint's tensors, with the pretrained state dict on the CPU."""
    return dict(_decompress(name, tensor, start) for name, tensor in stored.items())


def _decompress(name: str, tensor: Tensor, start: Mapping[str, Tensor]) -> tuple[str, Tensor]:
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
    """Average of model states given as weights and changes to a common start, as changes to the start.

    A weight of 1 gives that state exactly, and the average of equal states is exact, since the sum is computed in
    double precision. Raises a ValueError if the weights don't add up to 1, the start lacks a tensor, or one that isn't
    floating-point differs.
    """
    if abs(sum(weight for weight, _ in parts) - 1) > 1e-9:
        raise ValueError(f"the weights of an average must add up to 1, got {[weight for weight, _ in parts]}")
    parts = [(weight, changes) for weight, changes in parts if weight]
    names = {name for _, changes in parts for name in changes}
    if unknown := sorted(names - start.keys()):
        raise ValueError(f"the checkpoint has a tensor '{unknown[0]}' that the network lacks")
    result = {}
    for name in (name for name in start if name in names):
        values = [(weight, changes.get(name, start[name])) for weight, changes in parts]
        if name.endswith(COUNTER):
            result[name] = max(value for _, value in values)
        elif start[name].is_floating_point():
            result[name] = sum(weight * value.double() for weight, value in values).to(start[name].dtype)
        elif all(torch.equal(value, values[0][1]) for _, value in values):
            result[name] = values[0][1]
        else:
            raise ValueError(f"'{name}' differs between the merged states and is not floating-point")
    return result


def apply(model: nn.Module, weights: Mapping[str, float], checkpoints: Mapping[str, Path]) -> nn.Module:
    """Load a fine-tuned or merged state into a network with its pretrained weights, in place.

    A method without a checkpoint is the pretrained state. The result begins with the padding prompt, if there is one;
    a UserError if a state to average has one.
    """
    start = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    stored = {
        method: xor_decompress(safetensors.torch.load_file(checkpoints[method]), start) if method in checkpoints else {}
        for method, weight in weights.items()
        if weight
    }
    parts = [(weights[method], merged(start, tensors)) for method, tensors in stored.items()]
    prompts = {method: prompt for method, tensors in stored.items() if (prompt := with_prefix(tensors, PROMPT))}
    if prompts and len(stored) > 1:
        raise UserError(f"'{next(iter(prompts))}' trains a padding prompt, which can't be averaged with weights.")
    model.load_state_dict(start | average(start, parts), strict=True)
    for strips in prompts.values():
        device = next(model.parameters()).device
        return nn.Sequential(OrderedDict(prompt=PaddingPrompt(**strips).to(device), network=model))
    return model


def merged(start: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's changed tensors with low-rank updates added, without padding prompts."""
    others = (name for name in stored if not name.endswith((LORA_A, LORA_B)) and not name.startswith(PROMPT))
    changes = {name: stored[name] for name in others}
    for name in (key.removesuffix(LORA_A) for key in stored if key.endswith(LORA_A)):
        update = stored[name + LORA_B] @ stored[name + LORA_A]
        changes[name] = changes.get(name, start[name]) + update.view(start[name].shape)
    return changes


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names have a prefix, under the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
