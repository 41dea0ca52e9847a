"""Pretrained models: published weights to safetensors, safetensors to a network."""

import io
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from rib.io import UserError, archive_members, log, read_json, verify_digest, write_json

CLASSES = 1000


def build(library: str, architecture: str, dropout: float = 0.0, drop_path: float = 0.0) -> nn.Module:
    """A network with random weights and a 1000-way head, in evaluation mode.

    Args:
        library: `timm`, or `open_clip` for the visual tower of one of its models.
        architecture: its name there.
        dropout: probability with which training drops a feature before the head.
        drop_path: probability with which training skips a residual block.

    Raises:
        UserError: the library has no such architecture, or it can't drop.
    """
    if library == "open_clip":
        if dropout or drop_path:
            raise UserError(f"{architecture}: open_clip's towers have no dropout or drop_path; set both to 0.")
        return OpenClipClassifier.of(architecture).eval()
    import timm

    if not timm.is_model(architecture):
        raise UserError(
            f"{library} {timm.__version__} has no architecture '{architecture}'; correct it in models.yaml."
        )
    # Not every architecture knows them, so they are given only where they are wanted.
    rates = {name: rate for name, rate in (("drop_rate", dropout), ("drop_path_rate", drop_path)) if rate}
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=CLASSES, **rates).eval()
    except TypeError as error:
        raise UserError(f"{architecture} can't be built with {rates} ({error}); set them to 0.") from error


class OpenClipClassifier(nn.Module):
    """A visual tower of open_clip with a head, under the interface of timm's models.

    Args:
        visual: maps images (N, 3, H, W) to features (N, d).
        width: d.
    """

    def __init__(self, visual: nn.Module, width: int):
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(width, CLASSES)

    @classmethod
    def of(cls, architecture: str) -> "OpenClipClassifier":
        """The tower of a model that open_clip knows, with random weights.

        Raises:
            UserError: it doesn't.
        """
        import open_clip

        if architecture not in open_clip.list_models():
            raise UserError(
                f"open_clip {open_clip.__version__} has no architecture '{architecture}'; correct it in models.yaml."
            )
        visual = open_clip.create_model(architecture, pretrained=None).visual
        return cls(visual, open_clip.get_model_config(architecture)["embed_dim"])

    def forward_features(self, images: Tensor) -> Tensor:
        return self.visual(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.head


def load(folder: Path, device: torch.device, dropout: float = 0.0, drop_path: float = 0.0) -> tuple[nn.Module, dict]:
    """Network with its pretrained weights, channels last, and its facts.

    Args:
        folder: what a models job wrote.
        device: where it goes.
        dropout: see `build`.
        drop_path: see `build`.

    Returns:
        The network in evaluation mode, and model.json as a dict (mean, std, ...).
    """
    facts = read_json(folder / "model.json")
    model = build(facts["library"], facts["architecture"], dropout, drop_path)
    model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"), strict=True)
    return model.to(device, memory_format=torch.channels_last), facts


def convert(*, archive: Path, entry: Mapping, weights: Path, description: Path) -> None:
    """Write a published state dict as safetensors under the library's names, and check the result.

    Args:
        archive: the published package.
        entry: the model's catalogue entry.
        weights: written as .safetensors: the network's whole state dict.
        description: written as JSON: what later stages need to know of the model.

    Raises:
        UserError: the archive is not the pinned one, lacks the state dict, or that doesn't fit the architecture.
    """
    name = entry["name"]
    verify_digest(archive, entry["source"]["digest"], name)
    published = _read_state(archive, entry["weights"]["member"], name)
    model = build(entry["library"], entry["architecture"])
    state = _match(published, model.state_dict(), entry["weights"]["keys"], name)
    safetensors.torch.save_file(state, weights)
    _check_same_logits(model, state, weights, entry["preprocessing"]["size"], name)
    keys = ("name", "pretraining", "library", "architecture", "preprocessing", "licence")
    source = {key: value for key, value in entry["source"].items() if key != "path"}  # where it lay says nothing
    write_json(description, {key: entry[key] for key in keys} | {"source": source})


def _read_state(archive: Path, member: str, name: str) -> dict[str, Tensor]:
    if archive.suffix == ".safetensors":
        return safetensors.torch.load_file(archive)
    data = next((data for _, data in archive_members(archive, {member})), None)
    if data is None:
        raise UserError(f"{name}: {archive} holds no '{member}'; correct weights.member in models.yaml.")
    if member.endswith(".safetensors"):
        return safetensors.torch.load(data)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _match(published: Mapping[str, Tensor], wanted: Mapping[str, Tensor], keys: str, name: str) -> dict[str, Tensor]:
    """The published tensors under the network's names; every key and shape must find its partner."""
    names = list(wanted) if keys == "by_order" else list(published)
    if len(published) != len(wanted) or set(names) != set(wanted):
        raise UserError(
            f"{name}: the published state dict has {len(published)} tensors, the architecture {len(wanted)}, "
            f"matched {keys}; correct architecture or weights.keys in models.yaml."
        )
    state = dict(zip(names, published.values(), strict=True))
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            raise UserError(
                f"{name}: '{key}' has shape {tuple(tensor.shape)} in the published weights and {tuple(wanted[key].shape)} "
                "in the architecture; correct architecture or weights.keys in models.yaml."
            )
    return {key: state[key].contiguous() for key in wanted}


def _check_same_logits(model: nn.Module, state: Mapping[str, Tensor], weights: Path, size: int, name: str) -> None:
    """The stored file must give bit for bit the logits of the published tensors, and finite ones."""
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model.load_state_dict(state, strict=True)
        expected = model(image)
        model.load_state_dict(safetensors.torch.load_file(weights), strict=True)
        found = model(image)
    if not torch.equal(expected, found) or not expected.isfinite().all():
        raise UserError(
            f"{name}: the converted weights don't give the published weights' logits; don't use this model."
        )
    log.info("%s: %d tensors matched, same logits as published", name, len(state))
