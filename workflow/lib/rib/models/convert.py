"""Conversion of published weights to safetensors, with a head for the family's classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from torch import nn

from rib.base.files import verify_digest
from rib.data.view import DatasetFiles, load_proxy
from rib.models import device as devices
from rib.models.heads import fit_head, load_tokenizer
from rib.models.model_settings import ConversionSettings, TextSettings
from rib.models.network import Classifier, OpenClipClassifier, embedding_width, write_model
from rib.models.text import TextTower, prompt_tokens, set_zero_shot_weights, text_tokens
from rib.models.weights import read_state, with_weights

# Sources of a head.
FITTED = "fitted"
ZERO_SHOT = "zero_shot"


def convert(
    *,
    archives: Sequence[Path],
    reference: DatasetFiles | None,
    settings: ConversionSettings,
    weights: Path,
    description: Path,
) -> None:
    """Write a published state dict as safetensors, with a head for the datasets' common classes.

    Args:
        archives: file with the state dict, then the files of the tokenizer.
        reference: the pretraining proxy (images that stand in for the pretraining data), if a head
            is fitted on it.
        weights: .safetensors file to write, with the library's names of tensors.
        description: JSON file to write, {"library": "timm", "architecture": "resnet18",
            "num_classes": 1000, "head": {"from": "published"}, "preprocessing": {...}, ...}.

    Raises:
        UserError: the archive is not the pinned file, lacks the state dict, or doesn't fit the
            architecture.
    """
    entry: Mapping[str, Any] = settings.entry
    preprocessing = entry["preprocessing"]
    arguments = entry["arguments"]
    if entry["library"] == "open_clip":
        published = _published(archives, entry, None)
        width = embedding_width(entry["architecture"], arguments)
        image_tower = published.get_submodule("visual")
        # Its head is random; it is set below.
        model: Classifier = OpenClipClassifier(image_tower, width, settings.num_classes).eval()
    elif settings.head == FITTED:
        published = _published(archives, entry, None)
        model = _with_new_head(published, settings.num_classes)
    else:
        published = _published(archives, entry, settings.num_classes)
        model = cast(Classifier, published)
    if settings.head == ZERO_SHOT:
        tokenizer = load_tokenizer(
            entry["architecture"], arguments, archives[1:], entry["tokenizer"]
        )
        prompts = prompt_tokens(tokenizer, settings.class_names)
    if settings.head == FITTED:
        assert reference is not None and settings.view is not None  # on which the head is fitted
        proxy = load_proxy(reference, settings.view)
    device = devices.start(settings.compute)
    facts_of_head = {"from": settings.head}
    if settings.head == ZERO_SHOT:
        head = cast(OpenClipClassifier, model.to(device)).head
        set_zero_shot_weights(head, cast(TextTower, published.to(device)), prompts)
    if settings.head == FITTED:
        facts_of_head.update(fit_head(model.to(device), proxy, preprocessing, device))
    facts = {
        "source": _described_source(entry["source"]),
        "num_classes": settings.num_classes,
        "head": facts_of_head,
    }
    write_model(model.cpu(), entry, facts, weights, description)


def _with_new_head(published: nn.Module, num_classes: int) -> Classifier:
    """The same network; its new head is random until it is fitted."""
    reset_classifier: Any = published.reset_classifier
    reset_classifier(num_classes)
    return cast(Classifier, published)


def _described_source(source: Mapping) -> dict:
    """Where weights come from, for model.json: {"file": "resnet18.safetensors", ...}."""
    described = dict(source)
    if "repo" not in described:
        described.pop("path", None)  # of a local file: others have it elsewhere
    return described


def store_text(
    *, archives: Sequence[Path], settings: TextSettings, tower: Path, tokens: Path
) -> None:
    """Write an open_clip model's text tower and tokens, for methods that train with texts.

    Args:
        archives: file with the state dict, then the files of the tokenizer.
        tower: .safetensors file to write.
        tokens: .safetensors file to write, with the tensors `prompts`, `before`, `after` and
            `words` of rib.models.text.Text.

    Raises:
        UserError: the archive is not the pinned file, lacks the state dict, or doesn't fit the
            architecture.
    """
    entry: Mapping[str, Any] = settings.entry
    published = _published(archives, entry, None)
    tokenizer = load_tokenizer(
        entry["architecture"], entry["arguments"], archives[1:], entry["tokenizer"]
    )
    del published.visual
    tensors = {name: tensor.contiguous() for name, tensor in published.state_dict().items()}
    safetensors.torch.save_file(tensors, tower)
    safetensors.torch.save_file(text_tokens(tokenizer, settings.class_names), tokens)


def _published(archives: Sequence[Path], entry: Mapping, num_classes: int | None) -> nn.Module:
    """Network with published weights, after a check of the files' digests.

    `num_classes` None means as many outputs as the weights.
    """
    name = entry["name"]
    sources = [entry["source"], *entry["tokenizer"]]
    for archive, source in zip(archives, sources, strict=True):
        if "digest" in source:
            verify_digest(archive, source["digest"], name)
    state = read_state(archives[0], entry["weights"].get("member"), name)
    arguments = dict(entry["arguments"])
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    return with_weights(
        state,
        entry["library"],
        entry["architecture"],
        arguments,
        entry["weights"]["keys"],
        name,
    )
