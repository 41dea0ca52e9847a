"""Conversion of published weights to safetensors, with a head for the family's classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from rib.base.errors import UserError
from rib.base.files import verify_digest
from rib.base.progress import log
from rib.data.view import DatasetFiles, DatasetView, load_proxy
from rib.models import device as devices
from rib.models.heads import fit_head, load_tokenizer
from rib.models.network import OpenClipClassifier, embedding_width, write_model
from rib.models.text import prompt_tokens, set_zero_shot_weights, text_tokens
from rib.models.weights import RESIZING, read_state, with_weights

FITTED, ZERO_SHOT = "fitted", "zero_shot"


def convert(
    *,
    archives: Sequence[Path],
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
        archives: the file with the state dict, and those of the tokenizer.
        head: source of the head: `published`, `zero_shot` or `fitted`.
        class_names: the family's class names for a zero-shot head; None for ImageNet's.
        reference: the pretraining proxy, if a head is fitted on it.

    Raises:
        UserError: the archive is not the pinned one, lacks the state dict, or doesn't fit the architecture.
    """
    name, preprocessing = entry["name"], entry["preprocessing"]
    device = devices.start(compute)
    library, architecture, arguments = (
        entry[key] for key in ("library", "architecture", "arguments")
    )
    outputs = {"num_classes": num_classes} if library == "timm" and head != FITTED else {}
    model = whole = _published(archives, entry, outputs)
    if library == "open_clip":
        model = OpenClipClassifier(
            whole.visual, embedding_width(architecture, arguments), num_classes
        ).eval()
    elif head == FITTED:
        model.reset_classifier(num_classes)
    if head == ZERO_SHOT:
        tokenizer = load_tokenizer(architecture, arguments, archives[1:], entry["tokenizer"])
        set_zero_shot_weights(
            model.to(device).head, whole.to(device), prompt_tokens(tokenizer, class_names)
        )
    fitted = (
        fit_head(model.to(device), load_proxy(reference, view), preprocessing, device)
        if head == FITTED
        else {}
    )
    source = {
        key: value
        for key, value in entry["source"].items()
        if key != "path" or "repo" in entry["source"]
    }
    facts = {"source": source, "num_classes": num_classes, "head": {"from": head, **fitted}}
    write_model(model.cpu(), entry, facts, weights, description)
    side = next(
        (arguments[key] for key in RESIZING if key in arguments), preprocessing["input_size"]
    )
    _check_same_logits(model, weights, side if isinstance(side, int) else side[0], name)


def store_text(
    *,
    archives: Sequence[Path],
    entry: Mapping,
    class_names: Sequence[str] | None,
    tower: Path,
    tokens: Path,
) -> None:
    """Write the attributes of rib.models.text.Text of an open_clip model as safetensors; for the rest see `convert`."""
    whole = _published(archives, entry, {})
    tokenizer = load_tokenizer(
        entry["architecture"], entry["arguments"], archives[1:], entry["tokenizer"]
    )
    del whole.visual
    safetensors.torch.save_file(
        {name: part.contiguous() for name, part in whole.state_dict().items()}, tower
    )
    safetensors.torch.save_file(text_tokens(tokenizer, class_names), tokens)


def _published(archives: Sequence[Path], entry: Mapping, outputs: Mapping) -> nn.Module:
    """The library's network with its published weights, from archives that are the pinned ones.

    Args:
        archives: see `convert`.
        outputs: `num_classes`, as an argument of timm's create_model, or nothing.
    """
    name = entry["name"]
    sources = [entry["source"], *entry["tokenizer"]]
    for archive, source in zip(archives, sources, strict=True):
        if "digest" in source:
            verify_digest(archive, source["digest"], name)
    state = read_state(archives[0], entry["weights"].get("member"), name)
    return with_weights(
        state,
        entry["library"],
        entry["architecture"],
        {**entry["arguments"], **outputs},
        entry["weights"]["keys"],
        name,
    )


def _check_same_logits(model: nn.Module, weights: Path, size: int, name: str) -> None:
    """Check that stored weights give finite logits, bit-identical to those of the network.

    Args:
        model: with its published weights; it gets the stored ones.
        weights: the stored weights, as .safetensors.
        size: side of the input, in pixels.
        name: of the model, for messages.

    Raises:
        UserError: They don't.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, size, size, generator=generator)
    with torch.inference_mode():
        published_logits = model(images)
        model.load_state_dict(safetensors.torch.load_file(weights), strict=True)
        stored_logits = model(images)
    are_equal = torch.equal(published_logits, stored_logits)
    if not are_equal or not published_logits.isfinite().all():
        raise UserError(
            f"{name}: the stored weights don't give the published weights' logits; "
            "don't use this model."
        )
    log.info("%s: %d tensors stored, same logits as published", name, len(model.state_dict()))
