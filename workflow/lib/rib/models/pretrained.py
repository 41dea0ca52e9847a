"""Pretrained models: published weights to safetensors, safetensors to a network."""

import io
import pickle
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from rib.data.splits import reference_images
from rib.io import UserError, archive_members, log, read_json, verify_digest, write_json
from rib.models import device as devices
from rib.models.heads import fit_head, zero_shot_head

CLASSES = 1000  # ImageNet-1K's
FITTED, ZERO_SHOT = "fitted", "zero_shot"


def build(
    library: str, architecture: str, classes: int = CLASSES, dropout: float = 0.0, drop_path: float = 0.0
) -> nn.Module:
    """A network with random weights and a head, in evaluation mode.

    Args:
        library: `timm`, or `open_clip` for the visual tower of one of its models.
        architecture: its name there.
        classes: outputs of the head.
        dropout: probability with which training drops a feature before the head.
        drop_path: probability with which training skips a residual block.

    Raises:
        UserError: the library has no such architecture, or it can't drop.
    """
    if library == "open_clip":
        if dropout or drop_path:
            raise UserError(f"{architecture}: open_clip's towers have no dropout or drop_path; set both to 0.")
        return OpenClipClassifier.of(build_clip(architecture), architecture, classes).eval()
    import timm

    if not timm.is_model(architecture):
        raise UserError(
            f"{library} {timm.__version__} has no architecture '{architecture}'; correct it in models.yaml."
        )
    # Not every architecture knows them, so they are given only where they are wanted.
    rates = {name: rate for name, rate in (("drop_rate", dropout), ("drop_path_rate", drop_path)) if rate}
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=classes, **rates).eval()
    except TypeError as error:
        raise UserError(f"{architecture} can't be built with {rates} ({error}); set them to 0.") from error


def build_clip(architecture: str) -> nn.Module:
    """A whole open_clip model with random weights.

    Raises:
        UserError: it has no such architecture.
    """
    import open_clip

    if architecture not in open_clip.list_models():
        raise UserError(
            f"open_clip {open_clip.__version__} has no architecture '{architecture}'; correct it in models.yaml."
        )
    return open_clip.create_model(architecture, pretrained=None).eval()


class OpenClipClassifier(nn.Module):
    """A visual tower of open_clip with a head on its features at unit length, under the interface of timm's models.

    Args:
        visual: maps images (N, 3, H, W) to features (N, d).
        width: d.
        classes: outputs of the head.
    """

    def __init__(self, visual: nn.Module, width: int, classes: int = CLASSES):
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(width, classes)

    @classmethod
    def of(cls, clip: nn.Module, architecture: str, classes: int) -> "OpenClipClassifier":
        """The tower of an open_clip model, with a random head."""
        import open_clip

        return cls(clip.visual, open_clip.get_model_config(architecture)["embed_dim"], classes)

    def forward_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.visual(images), dim=-1)

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
    model = build(facts["library"], facts["architecture"], facts["outputs"], dropout, drop_path)
    model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"), strict=True)
    return model.to(device, memory_format=torch.channels_last), facts


def convert(
    *,
    archive: Path,
    entry: Mapping,
    head: str,
    outputs: int,
    names: Sequence[str] | None,
    reference_folder: Path | None,
    images: Mapping,
    compute: Mapping,
    weights: Path,
    description: Path,
) -> None:
    """Write a published state dict as safetensors under the library's names, with a head for the family's classes.

    Args:
        archive: the published package or file.
        entry: the model's catalogue entry.
        head: where the head comes from: `published`, `zero_shot` or `fitted`.
        outputs: how many the head has.
        names: of the family's classes, for a head made from them; None for ImageNet's.
        reference_folder: what a prepare job wrote for the family's reference dataset, where a head is fitted.
        images: how that is seen (rib.data.splits).
        compute: device, threads (see rib.models.device.start).
        weights: written as .safetensors: the network's whole state dict.
        description: written as JSON: what later stages need to know of the model.

    Raises:
        UserError: the archive is not the pinned one, lacks the state dict, or that doesn't fit the architecture.
    """
    name, preprocessing = entry["name"], entry["preprocessing"]
    if "digest" in entry["source"]:
        verify_digest(archive, entry["source"]["digest"], name)
    device = devices.start(**compute)
    published = _read_state(archive, entry["weights"].get("member"), name)
    fitted = {}
    if head == ZERO_SHOT:
        model = _zero_shot(published, entry, outputs, names, device)
    else:
        model = build(entry["library"], entry["architecture"], outputs)
        dropped = _head_names(model) if head == FITTED else set()
        state = _match(published, model.state_dict(), entry["weights"]["keys"], name, dropped)
        model.load_state_dict({**model.state_dict(), **state}, strict=True)
        if head == FITTED:
            reference = reference_images(reference_folder, images, None)
            fitted = fit_head(model.to(device), reference, preprocessing, device)
    state = {key: tensor.cpu().contiguous() for key, tensor in model.cpu().state_dict().items()}
    safetensors.torch.save_file(state, weights)
    _check_same_logits(model, weights, preprocessing["size"], name)
    keys = ("name", "pretraining", "library", "architecture", "preprocessing", "licence")
    source = {key: value for key, value in entry["source"].items() if key != "path" or "repo" in entry["source"]}
    facts = {"source": source, "outputs": outputs, "head": {"from": head, **fitted}}
    write_json(description, {key: entry[key] for key in keys} | facts)


def _head_names(model: nn.Module) -> set[str]:
    """Names of the head's tensors."""
    own = {id(tensor) for tensor in model.get_classifier().parameters()}
    return {name for name, tensor in model.named_parameters() if id(tensor) in own}


def _zero_shot(
    published: Mapping[str, Tensor], entry: Mapping, outputs: int, names: Sequence[str] | None, device: torch.device
) -> nn.Module:
    """The visual tower of published CLIP weights with a head made from class names; its logits must be CLIP's own."""
    clip = build_clip(entry["architecture"])
    clip.load_state_dict(_match(published, clip.state_dict(), entry["weights"]["keys"], entry["name"]), strict=True)
    clip.to(device)
    head = zero_shot_head(clip, entry["architecture"], names, device)
    model = OpenClipClassifier.of(clip, entry["architecture"], outputs)
    with torch.no_grad():
        model.head.weight.copy_(head)
        model.head.bias.zero_()
    return model.eval()


def _read_state(archive: Path, member: str | None, name: str) -> dict[str, Tensor]:
    """Published tensors, never unpickled: safetensors, or what torch reads with weights_only."""
    try:
        if member is None or archive.suffix == ".safetensors":
            return safetensors.torch.load_file(archive)
        data = next((read() for _, read in archive_members(archive, {member})), None)
        if data is None:
            raise UserError(f"{name}: {archive} holds no '{member}'; correct weights.member in models.yaml.")
        if member.endswith(".safetensors"):
            return safetensors.torch.load(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{name}: {archive} doesn't hold plain tensors ({str(error).splitlines()[0]}); other pickled objects are never "
            "loaded: don't use this file."
        ) from error


def _match(
    published: Mapping[str, Tensor], wanted: Mapping[str, Tensor], keys: str, name: str, dropped: Collection[str] = ()
) -> dict[str, Tensor]:
    """The published tensors under the network's names; every key and shape must find its partner.

    Args:
        published: by its own names.
        wanted: the network's state dict.
        keys: `by_name`, or `by_order` where the archive has other names.
        name: of the model, for messages.
        dropped: names of the network's that are left out; the archive may have tensors for all of them or for none.
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
    """The stored file must give bit for bit the logits of the network that was stored, and finite ones."""
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(image)
        model.load_state_dict(safetensors.torch.load_file(weights), strict=True)
        found = model(image)
    if not torch.equal(expected, found) or not expected.isfinite().all():
        raise UserError(f"{name}: the stored weights don't give the published weights' logits; don't use this model.")
    log.info("%s: %d tensors stored, same logits as published", name, len(model.state_dict()))
