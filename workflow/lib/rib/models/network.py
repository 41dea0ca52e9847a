"""Building and loading of networks."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.models.device import autocast

NUM_CLASSES = 1000  # ImageNet-1K's


def build(
    library: str, architecture: str, num_classes: int = NUM_CLASSES, dropout: float = 0.0, drop_path: float = 0.0
) -> nn.Module:
    """A network with random weights and a head, in evaluation mode.

    The library is `timm`, or `open_clip` for the visual tower of one of its models; for dropout and drop_path see
    rib.methods.base.FineTuning.

    Raises:
        UserError: the library lacks the architecture, or it doesn't support dropout or drop_path.
    """
    if library == "open_clip":
        if dropout or drop_path:
            raise UserError(f"{architecture}: open_clip's towers have no dropout or drop_path; set both to 0.")
        return OpenClipClassifier.of(build_clip(architecture), architecture, num_classes).eval()
    import timm

    if not timm.is_model(architecture):
        raise UserError(
            f"{library} {timm.__version__} has no architecture '{architecture}'; correct it in models.yaml."
        )
    # Not every architecture has these arguments, so they are passed only if set.
    rates = {name: rate for name, rate in (("drop_rate", dropout), ("drop_path_rate", drop_path)) if rate}
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=num_classes, **rates).eval()
    except TypeError as error:
        raise UserError(f"{architecture} can't be built with {rates} ({error}); set them to 0.") from error


def build_clip(architecture: str) -> nn.Module:
    """A whole open_clip model with random weights; a UserError if open_clip lacks the architecture."""
    import open_clip

    if architecture not in open_clip.list_models():
        raise UserError(
            f"open_clip {open_clip.__version__} has no architecture '{architecture}'; correct it in models.yaml."
        )
    return open_clip.create_model(architecture, pretrained=None).eval()


class OpenClipClassifier(nn.Module):
    """A visual tower of open_clip with a head on its unit-norm features (N, width), with timm's interface."""

    def __init__(self, visual: nn.Module, width: int, num_classes: int = NUM_CLASSES):
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(width, num_classes)

    @classmethod
    def of(cls, clip: nn.Module, architecture: str, num_classes: int) -> "OpenClipClassifier":
        """The tower of an open_clip model, with a random head."""
        import open_clip

        return cls(clip.visual, open_clip.get_model_config(architecture)["embed_dim"], num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.visual(images), dim=-1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.head


def head_inputs(model: nn.Module, images: Tensor) -> Tensor:
    """Features of images that the network's head reads: (N, d)."""
    with autocast(images.device):
        return model.forward_head(model.forward_features(images), pre_logits=True).flatten(1)


def head_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters of the network's head."""
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    return [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) in head]


def load(folder: Path, device: torch.device, dropout: float = 0.0, drop_path: float = 0.0) -> tuple[nn.Module, dict]:
    """A models job's network with its pretrained weights, channels last, in evaluation mode; and its model.json."""
    facts = read_json(folder / "model.json")
    model = build(facts["library"], facts["architecture"], facts["num_classes"], dropout, drop_path)
    model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"), strict=True)
    return model.to(device, memory_format=torch.channels_last), facts


def write_model(model: nn.Module, entry: Mapping, facts: Mapping, weights: Path, description: Path) -> None:
    """Write a network's state dict as safetensors and, as JSON, the given facts and those of its catalogue entry."""
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, weights)
    keys = ("name", "pretraining", "library", "architecture", "preprocessing", "licence")
    write_json(description, {key: entry[key] for key in keys} | facts)
