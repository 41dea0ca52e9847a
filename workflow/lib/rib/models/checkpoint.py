"""Checkpoints store what fine-tuning changed; a merge combines checkpoints when it is loaded, tensor by tensor.

The name of a tensor gives one of four forms, so that the file is enough to restore a run:

    <name>                        replaces the pretrained tensor
    <name>.xor                    its bits XOR those of the pretrained tensor, compressed (see `xor_compress`)
    <name>.lora_A, <name>.lora_B  factors (r, in) and (out, r); B A, in the tensor's shape, is added to it
    padding_prompt.<side>         a strip of the padding prompt (rib.models.padding_prompt)
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import safe_open
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.config.run import ENSEMBLE, PRETRAINED
from rib.models.merge import Merge, Weights
from rib.models.padding_prompt import PaddingPrompt

XOR = ".xor"
LORA_A, LORA_B = ".lora_A", ".lora_B"
PROMPT = "padding_prompt."
STATISTICS = (
    "running_mean",
    "running_var",
)  # of BatchNorm: extrapolated ones are of no images, and may be negative
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
    bits = tensor.flatten().view(torch.int32) ^ before.cpu().contiguous().flatten().view(
        torch.int32
    )
    planes = bits.view(torch.uint8).view(-1, 4).T.contiguous()
    data = pa.compress(planes.numpy().data, codec="zstd", asbytes=True)
    if len(data) >= planes.numel():
        return name, tensor
    return name + XOR, torch.frombuffer(bytearray(data), dtype=torch.uint8)


class Lazy(Mapping[str, Tensor]):
    """Tensors by name, each made when it is asked for and not kept, so that few are in memory at a time."""

    def __init__(self, make: Mapping[str, Callable[[], Tensor]]):
        self.make = make

    def __getitem__(self, name: str) -> Tensor:
        return self.make[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.make

    def __iter__(self) -> Iterator[str]:
        return iter(self.make)

    def __len__(self) -> int:
        return len(self.make)


def read_tensors(path: Path) -> Lazy:
    """Tensors of a .safetensors file."""
    with safe_open(path, "pt") as file:
        return Lazy({name: partial(_read, path, name) for name in file.keys()})  # noqa: SIM118 (it can't be iterated)


def _read(path: Path, name: str) -> Tensor:
    with safe_open(
        path, "pt"
    ) as file:  # opened again, since what is read stays in memory until it is closed
        return file.get_tensor(name)


def xor_decompress(stored: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Lazy:
    """Undo `xor_compress` for a checkpoint's tensors, with the pretrained state dict on the CPU."""
    names = {name: name.removesuffix(XOR) for name in stored}
    if unknown := [name for key, name in names.items() if key != name and name not in start]:
        raise ValueError(f"the checkpoint has a tensor '{unknown[0]}' that the network lacks")
    return Lazy({name: partial(_decompress, key, stored, start) for key, name in names.items()})


def _decompress(key: str, stored: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    if not key.endswith(XOR):
        return stored[key]
    before = start[key.removesuffix(XOR)]
    data = pa.decompress(stored[key].numpy().data, 4 * before.numel(), codec="zstd", asbytes=True)
    planes = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(4, -1)
    bits = planes.T.contiguous().view(torch.int32).flatten() ^ before.contiguous().flatten().view(
        torch.int32
    )
    return bits.view(torch.float32).view(before.shape)


def merged(start: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Lazy:
    """A checkpoint's changed tensors with low-rank updates added, without padding prompts."""
    factors = [key.removesuffix(LORA_A) for key in stored if key.endswith(LORA_A)]
    plain = [
        key for key in stored if not key.endswith((LORA_A, LORA_B)) and not key.startswith(PROMPT)
    ]
    return Lazy(
        {name: partial(_updated, name, start, stored) for name in dict.fromkeys([*plain, *factors])}
    )


def _updated(name: str, start: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Tensor:
    tensor = stored[name] if name in stored else start[name]
    if name + LORA_A not in stored:
        return tensor
    return tensor + (stored[name + LORA_B] @ stored[name + LORA_A]).view(start[name].shape)


def average(
    start: Mapping[str, Tensor], parts: Sequence[tuple[float, Mapping[str, Tensor]]]
) -> dict[str, Tensor]:
    """Average of model states given as weights and changes to a common start, as changes to the start.

    A weight of 1 gives that state exactly, and the average of equal states is exact, since the sum is computed in
    double precision. Raises a ValueError if the weights don't add up to 1, the start lacks a tensor, or one that isn't
    floating-point differs.
    """
    if abs(sum(weight for weight, _ in parts) - 1) > 1e-9:
        raise ValueError(
            f"the weights of an average must add up to 1, got {[weight for weight, _ in parts]}"
        )
    parts = [(weight, changes) for weight, changes in parts if weight]
    names = {name for _, changes in parts for name in changes}
    if unknown := sorted(names - start.keys()):
        raise ValueError(f"the checkpoint has a tensor '{unknown[0]}' that the network lacks")
    result = {}
    for name in (name for name in start if name in names):
        values = [(weight, changes.get(name, start[name])) for weight, changes in parts]
        if name.endswith(COUNTER):
            result[name] = max(value for _, value in values)
        elif name.endswith(STATISTICS) and min(weight for weight, _ in values) < 0:
            positive = [(max(weight, 0.0), value.double()) for weight, value in values]
            mean = sum(weight * value for weight, value in positive) / sum(
                weight for weight, _ in positive
            )
            result[name] = mean.to(start[name].dtype)
        elif start[name].is_floating_point():
            result[name] = sum(weight * value.double() for weight, value in values).to(
                start[name].dtype
            )
        elif all(torch.equal(value, values[0][1]) for _, value in values):
            result[name] = values[0][1]
        else:
            raise ValueError(
                f"'{name}' differs between the merged states and is not floating-point"
            )
    return result


@dataclass(frozen=True)
class States:
    """What an algorithm of form `merge` combines; see rib.methods."""

    start: Mapping[str, Tensor]  # the pretrained tensors, on the CPU
    changes: Mapping[
        str, Mapping[str, Tensor]
    ]  # by parent, the tensors that it changed, read when they are asked for
    names: Sequence[str]  # of the parameters that any parent changed, in the order of the network
    size: int  # values of all parameters, changed or not
    run: str  # the merged run, for seeds

    def values(self, name: str) -> Iterator[Tensor]:
        """A tensor of each parent, in double precision."""
        return (changes.get(name, self.start[name]).double() for changes in self.changes.values())

    def update(self, parent: str, name: str) -> Tensor:
        """A parent's tensor minus the pretrained one, in double precision: a part of its task vector."""
        return self.changes[parent].get(name, self.start[name]).double() - self.start[name].double()


def combine(
    model: nn.Module, start: Mapping, changes: Mapping[str, Mapping], made: Merge
) -> dict[str, Tensor]:
    """Changed tensors of a merge: parameters by its algorithm, others as in the average of the parents."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    others = [{name: own[name] for name in own if name not in sizes} for own in changes.values()]
    names = [
        name for name in start if name in sizes and any(name in own for own in changes.values())
    ]
    fisher = (
        [{parent: read_tensors(path) for parent, path in made.fisher.items()}]
        if made.fisher
        else []
    )
    states = States(start, changes, names, sum(sizes.values()), made.run)
    return average(start, [(1 / len(others), own) for own in others]) | made.call(
        "merge", states, *fisher
    )


def apply(model: nn.Module, weights: Weights, checkpoints: Mapping[str, Path]) -> nn.Module:
    """Load a fine-tuned or merged state into a network with its pretrained weights, in place.

    The state is an average with weights by method, or a merge that is computed here. A method without a checkpoint is the
    pretrained state. The result begins with the padding prompt, if there is one; a UserError if a state to merge has one.
    An ensemble is made of copies.
    """
    if isinstance(weights, Merge) and weights.form == ENSEMBLE:
        parts = {
            name: apply(copy.deepcopy(model), {name: 1.0}, checkpoints)
            for name in (PRETRAINED, *weights)
        }
        return weights.call("ensemble", parts)
    start = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    names = (
        list(weights)
        if isinstance(weights, Merge)
        else [name for name, weight in weights.items() if weight]
    )
    files = {
        name: read_tensors(checkpoints[name]) if name in checkpoints else Lazy({}) for name in names
    }
    prompts = {
        name: strips
        for name, file in files.items()
        if (
            strips := {
                key.removeprefix(PROMPT): file[key] for key in file if key.startswith(PROMPT)
            }
        )
    }
    if prompts and (len(files) > 1 or isinstance(weights, Merge)):
        raise UserError(
            f"'{next(iter(prompts))}' trains a padding prompt, which can't be merged with weights."
        )
    changes = {name: merged(start, xor_decompress(file, start)) for name, file in files.items()}
    if isinstance(weights, Merge):
        state = combine(model, start, changes, weights)
    else:
        state = average(start, [(weights[name], own) for name, own in changes.items()])
    model.load_state_dict(start | state, strict=True)
    for strips in prompts.values():
        device = next(model.parameters()).device
        return nn.Sequential(OrderedDict(prompt=PaddingPrompt(**strips).to(device), network=model))
    return model
