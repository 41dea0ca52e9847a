"""Checkpoints store what fine-tuning changed; a merge combines them, tensor by tensor, when loaded.

The name of a stored tensor says how it changes the pretrained network:

    <name>                        replaces the tensor
    <name>.xor                    its bits XOR the pretrained bits, compressed (see `xor_compress`)
    <name>.lora_A, <name>.lora_B  factors A (r, in), B (out, r); B A is added in the tensor's shape
    padding_prompt.<side>         a strip of the padding prompt (rib.models.padding_prompt)
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import safe_open
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.models.merge import Merge, Mixture
from rib.models.padding_prompt import PaddingPrompt
from rib.schema.run import ENSEMBLE, PRETRAINED

XOR = ".xor"
LORA_A = ".lora_A"
LORA_B = ".lora_B"
PROMPT = "padding_prompt."
BATCH_NORM_STATISTICS = ("running_mean", "running_var")
BATCH_NORM_COUNTER = "num_batches_tracked"


def differing_tensors(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Tensors of a state dict that differ from an earlier one; a checkpoint stores only these.

    For example {"fc.bias": tensor}, contiguous and on the CPU.
    """
    changed = {}
    for name, tensor in after.items():
        # Compared on its device: only changed tensors are copied to the CPU.
        if not torch.equal(tensor, before[name].to(tensor.device)):
            changed[name] = tensor.detach().cpu().contiguous()
    return changed


def xor_compress(changes: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Changed tensors as a checkpoint stores them: compressed without loss, if that saves bytes.

    Fine-tuning changes weights little: sign, exponent and leading digits mostly stay, and XOR with
    the pretrained bits gives zeros there. Grouped by position, the bytes compress to at most half
    (0.39 to 0.50 for EfficientNet-Lite0 on five emoji sets). {"fc.bias": tensor} gives
    {"fc.bias.xor": bytes}.

    Args:
        changes: changed tensors, contiguous and on the CPU.
        start: the pretrained state dict.
    """
    stored = {}
    for name, tensor in changes.items():
        compressed = _compressed_difference(tensor, start.get(name))
        if compressed is None:
            stored[name] = tensor
        else:
            stored[name + XOR] = compressed
    return stored


def _compressed_difference(tensor: Tensor, before: Tensor | None) -> Tensor | None:
    """Compressed XOR of two tensors' bits, (n,) uint8.

    None unless both are float32 of one shape and compression saves bytes.
    """
    if before is None or tensor.dtype != torch.float32 or tensor.shape != before.shape:
        return None
    difference = _bits(tensor) ^ _bits(before.cpu().contiguous())
    # The first bytes of all numbers, then the second bytes, and so on.
    bytes_by_position = difference.view(torch.uint8).view(-1, 4).T.contiguous()
    compressed = pa.compress(bytes_by_position.numpy().data, codec="zstd", asbytes=True)
    if len(compressed) >= bytes_by_position.numel():
        return None
    return _as_bytes(compressed)


def _bits(tensor: Tensor) -> Tensor:
    """Bits of a contiguous float32 tensor as int32 (n,), for XOR."""
    return tensor.flatten().view(torch.int32)


def _as_bytes(content: bytes) -> Tensor:
    """Tensor (n,) uint8, which .safetensors can store."""
    # Copied, since torch warns of memory that can't be written.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


class Lazy(Mapping[str, Tensor]):
    """Mapping that makes a tensor in each access and doesn't keep it, to save memory.

    Args:
        make: function that makes each tensor, such as {"fc.bias": partial(read, "fc.bias")}.
    """

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
    """Tensors of a .safetensors file, read from it in each access, to save memory."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    return Lazy({name: partial(_read_tensor, path, name) for name in names})


def _read_tensor(path: Path, name: str) -> Tensor:
    # Opened anew for each tensor: tensors stay in memory until their file is closed.
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def xor_decompress(stored: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Lazy:
    """Undo `xor_compress`; each tensor is decompressed in each access.

    Args:
        stored: the checkpoint's tensors, such as {"fc.weight.xor": bytes, "fc.bias": tensor}.
        start: the pretrained state dict, on the CPU.

    Raises:
        ValueError: the pretrained state dict lacks a compressed tensor.
    """
    functions_by_name: dict[str, Callable[[], Tensor]] = {}
    for stored_name in stored:
        if not stored_name.endswith(XOR):
            functions_by_name[stored_name] = partial(stored.__getitem__, stored_name)
            continue
        name = stored_name.removesuffix(XOR)
        if name not in start:
            raise _lacking_tensor_error(name)
        functions_by_name[name] = partial(_decompressed, name, stored, start)
    return Lazy(functions_by_name)


def _decompressed(name: str, stored: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """Tensor `name`, such as `fc.weight`, by XOR of stored and pretrained bits."""
    before = start[name]
    compressed = stored[name + XOR].numpy().data
    content = pa.decompress(compressed, 4 * before.numel(), codec="zstd", asbytes=True)
    bytes_by_position = _as_bytes(content).view(4, -1)
    difference = bytes_by_position.T.contiguous().view(torch.int32).flatten()
    bits = difference ^ _bits(before.contiguous())
    return bits.view(torch.float32).view(before.shape)


def _lacking_tensor_error(name: str) -> ValueError:
    return ValueError(f"the checkpoint has a tensor '{name}' that the network lacks")


def add_low_rank_updates(start: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Lazy:
    """Tensors of the network that a checkpoint changes, computed in each access.

    LoRA stores updates as factors A and B. A checkpoint with `head.bias`, `qkv.weight.lora_A` and
    `qkv.weight.lora_B` gives `head.bias` as stored, and `qkv.weight` as pretrained plus B A.

    Args:
        start: the pretrained state dict.
        stored: the checkpoint's tensors, decompressed; strips of a padding prompt are ignored.
    """
    replaced_names = []
    updated_names = []
    for stored_name in stored:
        if stored_name.startswith(PROMPT) or stored_name.endswith(LORA_B):
            continue
        if stored_name.endswith(LORA_A):
            updated_names.append(stored_name.removesuffix(LORA_A))
        else:
            replaced_names.append(stored_name)
    changed_names = dict.fromkeys([*replaced_names, *updated_names])
    return Lazy({name: partial(_changed_tensor, name, start, stored) for name in changed_names})


def _changed_tensor(name: str, start: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Tensor:
    """The stored tensor, else the pretrained one; plus B A if LoRA stored these factors for it."""
    tensor = stored[name] if name in stored else start[name]
    if name + LORA_A not in stored:
        return tensor
    update = stored[name + LORA_B] @ stored[name + LORA_A]
    return tensor + update.view(start[name].shape)


def average(
    start: Mapping[str, Tensor], weighted_changes: Sequence[tuple[float, Mapping[str, Tensor]]]
) -> dict[str, Tensor]:
    """Average of models: its tensors that differ from the pretrained ones, {"fc.bias": tensor}.

    The sum is computed in double precision: a coefficient of 1 gives that model exactly, and equal
    models give their tensors exactly.

    Args:
        start: the pretrained state dict.
        weighted_changes: coefficient and changed tensors of each model, such as
            [(0.5, {}), (0.5, {"fc.bias": tensor})].

    Raises:
        ValueError: the coefficients don't add up to 1, the start lacks a tensor, or a tensor that
            isn't floating-point differs between models.
    """
    coefficients = [coefficient for coefficient, _ in weighted_changes]
    if abs(sum(coefficients) - 1) > 1e-9:
        raise ValueError(f"the coefficients of an average must add up to 1, got {coefficients}")
    contributions = [
        (coefficient, changes) for coefficient, changes in weighted_changes if coefficient != 0
    ]
    changed_names: set[str] = set()
    for _, changes in contributions:
        changed_names.update(changes)
    unknown_names = sorted(changed_names - start.keys())
    if unknown_names:
        raise _lacking_tensor_error(unknown_names[0])
    averaged = {}
    for name, start_tensor in start.items():
        if name not in changed_names:
            continue
        weighted_tensors = []
        for coefficient, changes in contributions:
            weighted_tensors.append((coefficient, changes.get(name, start_tensor)))
        averaged[name] = _average_of_tensor(name, weighted_tensors, start_tensor.dtype)
    return averaged


def _average_of_tensor(
    name: str, weighted_tensors: Sequence[tuple[float, Tensor]], dtype: torch.dtype
) -> Tensor:
    """Average of one tensor, from pairs (coefficient, tensor); coefficients add up to 1."""
    if name.endswith(BATCH_NORM_COUNTER):
        # Evaluation doesn't use this counter, and a mean of integers may not be an integer.
        return max(tensor for _, tensor in weighted_tensors)
    # Task arithmetic can give the pretrained model a negative coefficient.
    is_extrapolated = any(coefficient < 0 for coefficient, _ in weighted_tensors)
    if name.endswith(BATCH_NORM_STATISTICS) and is_extrapolated:
        # Extrapolated means and variances would describe no images, and a variance could be
        # negative. So only models with positive coefficients are averaged.
        positively_weighted = [
            (max(coefficient, 0.0), tensor) for coefficient, tensor in weighted_tensors
        ]
        # The positive coefficients add up to more than 1.
        sum_of_coefficients = sum(coefficient for coefficient, _ in positively_weighted)
        return (_weighted_sum(positively_weighted) / sum_of_coefficients).to(dtype)
    if dtype.is_floating_point:
        return _weighted_sum(weighted_tensors).to(dtype)
    # Integers and truth values have no average.
    _, first_tensor = weighted_tensors[0]
    if not all(torch.equal(tensor, first_tensor) for _, tensor in weighted_tensors):
        raise ValueError(f"'{name}' differs between the merged states and is not floating-point")
    return first_tensor


def _weighted_sum(weighted_tensors: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Sum of coefficient * tensor, in double precision."""
    _, first_tensor = weighted_tensors[0]
    total = torch.zeros_like(first_tensor, dtype=torch.float64)
    for coefficient, tensor in weighted_tensors:
        total = total + coefficient * tensor.double()
    return total


@dataclass(frozen=True)
class StatesToMerge:
    """The pretrained network and the fine-tuned models (parents) that an algorithm merges."""

    start: Mapping[str, Tensor]  # pretrained tensors, on the CPU
    # Changed tensors of each parent, read in each access, such as {"ft": {"fc.bias": tensor}}.
    changes: Mapping[str, Mapping[str, Tensor]]
    names: Sequence[str]  # parameters that any parent changed, in the network's order
    size: int  # number of values of all parameters, changed or not
    run: str  # the merged run, such as `tiny_cnn/green/dare/all/0`, for seeds

    def values(self, name: str) -> Iterator[Tensor]:
        """The tensor of each parent, in double precision, in the order of `changes`."""
        for changes_of_parent in self.changes.values():
            yield changes_of_parent.get(name, self.start[name]).double()

    def update(self, parent: str, name: str) -> Tensor:
        """A parent's tensor minus the pretrained tensor, in double precision."""
        pretrained_tensor = self.start[name]
        tensor_of_parent = self.changes[parent].get(name, pretrained_tensor)
        return tensor_of_parent.double() - pretrained_tensor.double()


def combine(
    model: nn.Module,
    start: Mapping[str, Tensor],
    changes: Mapping[str, Mapping[str, Tensor]],
    merge: Merge,
) -> dict[str, Tensor]:
    """Tensors of a merged network that may differ from the pretrained ones, {"fc.bias": tensor}.

    The algorithm merges parameters. Buffers, such as BatchNorm statistics, are averaged.

    Args:
        model: says which tensors are parameters.
        start: the pretrained state dict, on the CPU.
        changes: changed tensors of each parent, such as {"ft": {"fc.bias": tensor}}.
        merge: such as TIES with its settings.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    changed_names: set[str] = set()
    for changes_of_parent in changes.values():
        changed_names.update(changes_of_parent)
    states = StatesToMerge(
        start=start,
        changes=changes,
        names=[name for name in start if name in sizes and name in changed_names],
        size=sum(sizes.values()),
        run=merge.run,
    )
    averaged_buffers = _averaged_buffers(start, changes, sizes.keys())
    if merge.fisher:  # files; only some algorithms take Fisher information
        fisher = {parent: read_tensors(path) for parent, path in merge.fisher.items()}
        merged_parameters = merge.call("merge", states, fisher)
    else:
        merged_parameters = merge.call("merge", states)
    return {**averaged_buffers, **merged_parameters}


def _averaged_buffers(
    start: Mapping[str, Tensor],
    changes: Mapping[str, Mapping[str, Tensor]],
    parameter_names: Collection[str],
) -> dict[str, Tensor]:
    """Plain mean over the parents of their changed buffers: {"bn1.running_mean": tensor}."""
    coefficient = 1 / len(changes)
    weighted_buffers = []
    for changes_of_parent in changes.values():
        buffers = {}
        for name in changes_of_parent:
            if name not in parameter_names:
                buffers[name] = changes_of_parent[name]
        weighted_buffers.append((coefficient, buffers))
    return average(start, weighted_buffers)


def apply(model: nn.Module, mixture: Mixture, checkpoints: Mapping[str, Path]) -> nn.Module:
    """Load fine-tuned or merged weights into a pretrained network, in place.

    An ensemble is made of copies instead.

    Args:
        mixture: coefficients of an average, such as {"pretrained": 0.5, "ft": 0.5}; or a merge or
            an ensemble, which is computed here. A key without a checkpoint is the pretrained model.
        checkpoints: file of each key, such as {"ft": Path("checkpoint.safetensors")}.

    Returns:
        The network, preceded by the padding prompt if the checkpoint has one.

    Raises:
        UserError: a merged model has a padding prompt, or the algorithm refuses its inputs.
    """
    if isinstance(mixture, Merge):
        if mixture.form == ENSEMBLE:
            return _ensemble(model, mixture, checkpoints)
        keys = list(mixture)
        can_have_prompt = False  # a prompt is not part of the network, so it can't be merged
    else:
        keys = [key for key, coefficient in mixture.items() if coefficient != 0]
        can_have_prompt = len(keys) == 1
    start = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    prompt_strips = {}
    changes = {}
    for key in keys:
        stored = _stored_tensors(checkpoints.get(key))
        strips = _prompt_strips(stored)
        if strips and not can_have_prompt:
            raise UserError(f"'{key}' trains a padding prompt, which can't be merged with weights.")
        prompt_strips.update(strips)
        changes[key] = add_low_rank_updates(start, xor_decompress(stored, start))
    if isinstance(mixture, Merge):
        changed = combine(model, start, changes, mixture)
    else:
        weighted_changes = [(mixture[key], changes[key]) for key in keys]
        changed = average(start, weighted_changes)
    model.load_state_dict({**start, **changed}, strict=True)
    if not prompt_strips:
        return model
    return _with_prompt(model, prompt_strips)


def _ensemble(model: nn.Module, ensemble: Merge, checkpoints: Mapping[str, Path]) -> nn.Module:
    """One network that calls several: {"pretrained": network, "ft": network} for parents ["ft"]."""
    networks = {}
    for method in (PRETRAINED, *ensemble):
        networks[method] = apply(copy.deepcopy(model), {method: 1.0}, checkpoints)
    network: nn.Module = ensemble.call("ensemble", networks)
    return network


def _stored_tensors(checkpoint: Path | None) -> Lazy:
    """No tensors for the pretrained model, which has no checkpoint."""
    if checkpoint is None:
        return Lazy({})
    return read_tensors(checkpoint)


def _with_prompt(model: nn.Module, prompt_strips: Mapping[str, Tensor]) -> nn.Sequential:
    """The network behind a prompt of strips {"top": tensor, ...}, as `prompt` and `network`."""
    device = next(model.parameters()).device
    prompt = PaddingPrompt(**prompt_strips).to(device)
    return nn.Sequential(OrderedDict(prompt=prompt, network=model))


def _prompt_strips(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A padding prompt's strips by side, {"top": tensor, ...}; empty without a prompt."""
    strips = {}
    for name in stored:
        if name.startswith(PROMPT):
            strips[name.removeprefix(PROMPT)] = stored[name]
    return strips
