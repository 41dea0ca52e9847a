"""Building and loading of networks."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.config.model_arguments import check_arguments
from rib.models.device import autocast

NUM_CLASSES = 1000  # ImageNet-1K's
SIMD_WIDTH = 16  # most float32 numbers in a vector register
NO_ARGUMENTS: Mapping = MappingProxyType({})


def build(
    library: str,
    architecture: str,
    num_classes: int = NUM_CLASSES,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    arguments: Mapping = NO_ARGUMENTS,
) -> nn.Module:
    """A network with random weights and a head, in evaluation mode.

    The library is `timm`, or `open_clip` for the visual tower of one of its models; for dropout and drop_path see
    rib.methods.base.FineTuning, for arguments and errors `create`. A UserError too if a rate isn't supported, or an
    argument is none that rib.config.model_arguments allows.
    """
    check_arguments(library, arguments, architecture)
    if library == "open_clip":
        if dropout or drop_path:
            raise UserError(
                f"{architecture}: open_clip's towers have no dropout or drop_path; set both to 0."
            )
        # open_clip moves what it has built to the CPU, unless it is told another device.
        place = {"device": torch.get_default_device()}
        tower = create(library, architecture, {**arguments, **place}).visual
        model = OpenClipClassifier(tower, embedding_width(architecture, arguments), num_classes)
    else:
        # Not every architecture has these arguments, so they are passed only if set.
        rates = {
            name: rate
            for name, rate in (("drop_rate", dropout), ("drop_path_rate", drop_path))
            if rate
        }
        model = create(library, architecture, {**arguments, **rates, "num_classes": num_classes})
    _subsample_first(model)
    return model.eval()


def _subsample_first(model: nn.Module) -> None:
    """Let narrow pointwise convolutions with a stride subsample their input instead, which gives the same output.

    For few input channels, as in FastViT's stem, oneDNN's gradient of the weights is wrong or crashes (its issue 6035).
    """
    for layer in model.modules():
        narrow = isinstance(layer, nn.Conv2d) and layer.in_channels < SIMD_WIDTH
        if narrow and layer.kernel_size == (1, 1) != layer.stride:
            sampled = (..., *(slice(None, None, stride) for stride in layer.stride))
            layer.stride = (1, 1)
            layer.register_forward_pre_hook(lambda _, args, sampled=sampled: (args[0][sampled],))


def create(
    library: str, architecture: str, arguments: Mapping, state: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """A network of timm, or a whole model of open_clip, by the library's create_model with these keyword arguments.

    `model_cfg` among them is the configuration of an open_clip model that open_clip doesn't list. A state dict of an
    open_clip model is converted by open_clip; without one, weights are random. Raises a UserError if the library lacks
    the architecture, or it doesn't support an argument.
    """
    if library == "open_clip":
        import open_clip as module

        known = "model_cfg" in arguments or architecture in module.list_models()
    else:
        import timm as module

        known = module.is_model(architecture)
    if not known:
        raise UserError(
            f"{library} {module.__version__} has no architecture '{architecture}'; correct it in models.yaml."
        )
    try:
        if library == "timm":
            return module.create_model(architecture, **{"pretrained": False, **arguments})
        arguments = dict(arguments)
        config = arguments.pop("model_cfg", None) or module.get_model_config(architecture)
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / "open_clip_config.json", {"model_cfg": config})
            if state:
                copies = {key: tensor.contiguous().clone() for key, tensor in state.items()}
                safetensors.torch.save_file(copies, Path(folder) / "open_clip_model.safetensors")
            arguments |= {"load_weights": bool(state), "pretrained_text": False}
            return module.create_model(f"local-dir:{folder}", **arguments)
    except TypeError as error:
        shown = {
            name: value
            for name, value in arguments.items()
            if name not in ("pretrained_cfg_overlay", "device")
        }
        raise UserError(
            f"{architecture} can't be built with {shown} ({error}); correct these settings."
        ) from error


def embedding_width(architecture: str, arguments: Mapping) -> int:
    """Width of an open_clip model's image and text features."""
    import open_clip

    return (arguments.get("model_cfg") or open_clip.get_model_config(architecture))["embed_dim"]


class OpenClipClassifier(nn.Module):
    """A visual tower of open_clip with a head on its unit-norm features (N, width), with timm's interface."""

    def __init__(self, visual: nn.Module, width: int, num_classes: int = NUM_CLASSES):
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(width, num_classes)

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
    """Named parameters of the network's head, or of its two heads if it was distilled."""
    head = model.get_classifier()
    trained = {
        id(part)
        for one in (head if isinstance(head, tuple) else (head,))
        for part in one.parameters()
    }
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if id(parameter) in trained
    ]


def load(
    folder: Path, device: torch.device, dropout: float = 0.0, drop_path: float = 0.0
) -> tuple[nn.Module, dict]:
    """A models job's network with its pretrained weights, channels last, in evaluation mode; and its model.json."""
    facts = read_json(folder / "model.json")
    arguments = facts.get("arguments", NO_ARGUMENTS)
    check_arguments(facts["library"], arguments, str(folder / "model.json"))
    of = (facts["library"], facts["architecture"], facts["num_classes"])
    model = build(*of, dropout, drop_path, arguments)
    model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"), strict=True)
    return model.to(device, memory_format=torch.channels_last), facts


def write_model(
    model: nn.Module, entry: Mapping, facts: Mapping, weights: Path, description: Path
) -> None:
    """Write a network's state dict as safetensors and, as JSON, the given facts and those of its catalogue entry."""
    safetensors.torch.save_file(
        {name: part.cpu().contiguous() for name, part in model.state_dict().items()}, weights
    )
    keys = (
        "name",
        "pretraining",
        "library",
        "architecture",
        "arguments",
        "preprocessing",
        "licence",
    )
    write_json(description, {key: entry[key] for key in keys} | facts)
