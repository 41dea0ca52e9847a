"""Conversion of published weights to safetensors, with a head for the family's classes."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import verify_digest
from rib.base.progress import log
from rib.data.archives import WEIGHTS, archive_members
from rib.data.view import DatasetFiles, DatasetView, load_proxy
from rib.models import device as devices
from rib.models.heads import fit_head, zero_shot_head
from rib.models.network import OpenClipClassifier, build, build_clip, head_parameters, write_model

FITTED, ZERO_SHOT = "fitted", "zero_shot"


def convert(
    *,
    archive: Path,
    entry: Mapping,
    head: str,
    num_classes: int,
    class_names: Sequence[str] | None,
    reference: DatasetFiles | None,
    view: DatasetView | None,
    compute: devices.ComputeSettings,
    weights: Path,
    description: Path,
) -> None:
    """Write a published state dict as safetensors under the library's names, with a head for the family's classes.

    Args:
        entry: the model's catalogue entry.
        head: source of the head: `published`, `zero_shot` or `fitted`.
        class_names: the family's class names for a zero-shot head; None for ImageNet's.
        reference: the pretraining proxy, if a head is fitted on it.

    Raises:
        UserError: the archive is not the pinned one, lacks the state dict, or doesn't fit the architecture.
    """
    name, preprocessing = entry["name"], entry["preprocessing"]
    if "digest" in entry["source"]:
        verify_digest(archive, entry["source"]["digest"], name)
    device = devices.start(compute)
    published = _read_state(archive, entry["weights"].get("member"), name)
    fitted = {}
    if head == ZERO_SHOT:
        model = _zero_shot(published, entry, num_classes, class_names, device)
    else:
        model = build(entry["library"], entry["architecture"], num_classes)
        dropped = [name for name, _ in head_parameters(model)] if head == FITTED else []
        state = _match(published, model.state_dict(), entry["weights"]["keys"], name, dropped)
        model.load_state_dict({**model.state_dict(), **state}, strict=True)
        if head == FITTED:
            fitted = fit_head(model.to(device), load_proxy(reference, view), preprocessing, device)
    source = {key: value for key, value in entry["source"].items() if key != "path" or "repo" in entry["source"]}
    facts = {"source": source, "num_classes": num_classes, "head": {"from": head, **fitted}}
    write_model(model.cpu(), entry, facts, weights, description)
    _check_same_logits(model, weights, preprocessing["input_size"], name)


def _zero_shot(
    published: Mapping[str, Tensor], entry: Mapping, num_classes: int, names: Sequence[str] | None, device: torch.device
) -> nn.Module:
    """The visual tower of published CLIP weights with a zero-shot head, which gives CLIP's own logits."""
    clip = build_clip(entry["architecture"])
    clip.load_state_dict(_match(published, clip.state_dict(), entry["weights"]["keys"], entry["name"]), strict=True)
    clip.to(device)
    head = zero_shot_head(clip, entry["architecture"], names, device)
    model = OpenClipClassifier.of(clip, entry["architecture"], num_classes)
    with torch.no_grad():
        model.head.weight.copy_(head)
        model.head.bias.zero_()
    return model.eval()


def _read_state(archive: Path, member: str | None, name: str) -> dict[str, Tensor]:
    """Published tensors by name, from safetensors, or from pickles that torch reads with weights_only."""
    try:
        if member is None or archive.suffix == ".safetensors":
            found = safetensors.torch.load_file(archive)
        elif (data := next((read() for _, read in archive_members(archive, {member}, largest=WEIGHTS)), None)) is None:
            raise UserError(f"{name}: {archive} contains no '{member}'; correct weights.member in models.yaml.")
        elif member.endswith(".safetensors"):
            found = safetensors.torch.load(data)
        else:
            parts = zipfile.ZipFile(io.BytesIO(data)).infolist() if zipfile.is_zipfile(io.BytesIO(data)) else []
            if any(part.compress_type and "/code/" not in part.filename for part in parts):  # code: of TorchScript
                raise ValueError("torch does not compress tensors, and would expand any number of bytes")
            with warnings.catch_warnings(action="ignore"):
                found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (UserError, MemoryError, OSError):
        raise
    except Exception as error:  # not shown: torch's messages, like its warnings, recommend less safe ways to load
        why = "is truncated, damaged or in another format"
        if isinstance(error, pickle.UnpicklingError):
            why = "contains other pickled objects than tensors, which are never loaded"
        elif "TorchScript" in str(error):
            why = "is a TorchScript archive, which contains code"
        raise UserError(f"{name}: {archive} {why}; don't use this file.") from None
    tensors = found if isinstance(found, dict) else {}
    others = [
        f"'{key}' ({type(value).__name__})"
        for key, value in tensors.items()
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta or value.is_nested
    ]
    if others or not tensors:
        raise UserError(
            f"{name}: {archive} is a {type(found).__name__} with {', '.join(others)[:200] or 'no named tensors'}; save "
            "its state dict, tensors by name, as .safetensors and give that file in models.yaml."
        )
    return tensors


def _match(
    published: Mapping[str, Tensor], wanted: Mapping[str, Tensor], keys: str, name: str, dropped: Collection[str] = ()
) -> dict[str, Tensor]:
    """The published tensors under the network's names; all keys and shapes must match.

    Network tensors to be dropped are left out; the archive may have all or none of them.
    """
    kept = [key for key in wanted if key not in dropped]
    names = list(published)
    if keys == "by_order":
        names = list(wanted) if len(published) == len(wanted) else kept
    if len(published) != len(names) or {key for key in names if key not in dropped} != set(kept):
        raise UserError(
            f"{name}: the published state dict has {len(published)} tensors, the architecture {len(wanted)}, "
            f"matched {keys}; correct architecture or weights.keys in models.yaml."
        )
    state = dict(zip(names, published.values(), strict=True))
    for key in kept:
        rounded = wanted[key].is_floating_point() and not state[key].is_floating_point()
        if state[key].shape != wanted[key].shape or rounded:
            raise UserError(
                f"{name}: '{key}' is {tuple(state[key].shape)}, {state[key].dtype}, in the published weights, but "
                f"{tuple(wanted[key].shape)}, {wanted[key].dtype}, in the architecture; correct it or weights.keys in models.yaml."
            )
        if not state[key].to(wanted[key].dtype).isfinite().all():
            raise UserError(f"{name}: '{key}' has NaN or infinite values in the published weights; don't use them.")
    return {key: state[key].contiguous() for key in kept}


def _check_same_logits(model: nn.Module, weights: Path, size: int, name: str) -> None:
    """Check that the stored weights give finite logits, bit-identical to those of the published weights."""
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(image)
        model.load_state_dict(safetensors.torch.load_file(weights), strict=True)
        found = model(image)
    if not torch.equal(expected, found) or not expected.isfinite().all():
        raise UserError(f"{name}: the stored weights don't give the published weights' logits; don't use this model.")
    log.info("%s: %d tensors stored, same logits as published", name, len(model.state_dict()))
