"""Conversion of published weights to safetensors, with a head for the family's classes."""

import io
import pickle
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
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
    """Published tensors from safetensors, or from pickles that torch reads with weights_only."""
    try:
        if member is None or archive.suffix == ".safetensors":
            return safetensors.torch.load_file(archive)
        data = next((read() for _, read in archive_members(archive, {member}, largest=WEIGHTS)), None)
        if data is None:
            raise UserError(f"{name}: {archive} contains no '{member}'; correct weights.member in models.yaml.")
        if member.endswith(".safetensors"):
            return safetensors.torch.load(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{name}: {archive} doesn't contain plain tensors ({str(error).splitlines()[0]}); other pickled objects "
            "are never loaded: don't use this file."
        ) from error


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
        if state[key].shape != wanted[key].shape:
            raise UserError(
                f"{name}: '{key}' has shape {tuple(state[key].shape)} in the published weights and "
                f"{tuple(wanted[key].shape)} in the architecture; correct architecture or weights.keys in models.yaml."
            )
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
