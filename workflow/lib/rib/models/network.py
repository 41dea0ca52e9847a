"""Building and loading of networks."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

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
# Facts of a catalogue entry that a model's description repeats, in this order.
DESCRIBED_FACTS = (
    "name",
    "pretraining",
    "library",
    "architecture",
    "arguments",
    "preprocessing",
    "licence",
)


def build(
    library: str,
    architecture: str,
    num_classes: int = NUM_CLASSES,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    arguments: Mapping = NO_ARGUMENTS,
) -> nn.Module:
    """A network with random weights and a head, in evaluation mode.

    Args:
        library: `timm`, or `open_clip` for the visual tower of one of its models.
        dropout, drop_path: see rib.methods.base.FineTuning.
        arguments: see `create`.

    Raises:
        UserError: The library doesn't support a rate, an argument is none that
            rib.config.model_arguments allows, or see `create`.
    """
    check_arguments(library, arguments, architecture)
    if library == "open_clip":
        if dropout or drop_path:
            raise UserError(
                f"{architecture}: open_clip's towers have no dropout or drop_path; set both to 0."
            )
        # open_clip moves what it has built to the CPU, unless it is told another device.
        arguments_with_device = {**arguments, "device": torch.get_default_device()}
        tower = create(library, architecture, arguments_with_device).visual
        model = OpenClipClassifier(tower, embedding_width(architecture, arguments), num_classes)
    else:
        timm_arguments = dict(arguments)
        # Not every architecture has these arguments, so they are passed only if set.
        if dropout:
            timm_arguments["drop_rate"] = dropout
        if drop_path:
            timm_arguments["drop_path_rate"] = drop_path
        timm_arguments["num_classes"] = num_classes
        model = create(library, architecture, timm_arguments)
    _subsample_first(model)
    return model.eval()


def _subsample_first(model: nn.Module) -> None:
    """Let narrow pointwise convolutions with a stride subsample their input instead.

    The output is the same. For few input channels, as in FastViT's stem, oneDNN's gradient of the
    weights is wrong or crashes (its issue 6035).
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d) or layer.in_channels >= SIMD_WIDTH:
            continue
        if layer.kernel_size == (1, 1) and layer.stride != (1, 1):
            layer.register_forward_pre_hook(_subsampling_hook(*layer.stride))
            layer.stride = (1, 1)


def _subsampling_hook(vertical_stride: int, horizontal_stride: int):
    """A hook that lets a layer see only each stride-th row and column of its images.

    A pointwise convolution without a stride then gives what it would give with the stride.
    """

    def subsample(layer: nn.Module, layer_inputs: tuple[Tensor]) -> tuple[Tensor]:
        """Called by torch before the layer, with its arguments; returns those that it gets."""
        (images,) = layer_inputs
        return (images[..., ::vertical_stride, ::horizontal_stride],)

    return subsample


def create(
    library: str, architecture: str, arguments: Mapping, state: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """A network of timm, or a whole model of open_clip, by the library's create_model.

    Args:
        arguments: keyword arguments of create_model; `model_cfg` among them is the configuration of
            an open_clip model that open_clip doesn't list.
        state: state dict of an open_clip model, which open_clip converts; without one, weights are
            random.

    Raises:
        UserError: The library lacks the architecture, or it doesn't support an argument.
    """
    if library == "open_clip":
        import open_clip

        module = open_clip
        is_known = "model_cfg" in arguments or architecture in open_clip.list_models()
    else:
        import timm

        module = timm
        is_known = timm.is_model(architecture)
    if not is_known:
        raise UserError(
            f"{library} {module.__version__} has no architecture '{architecture}'; "
            "correct it in models.yaml."
        )
    try:
        if library == "open_clip":
            return _create_open_clip(module, architecture, arguments, state)
        return module.create_model(architecture, **{"pretrained": False, **arguments})
    except TypeError as error:
        shown_arguments = {
            name: argument
            for name, argument in arguments.items()
            if name not in ("model_cfg", "pretrained_cfg_overlay", "device")
        }
        raise UserError(
            f"{architecture} can't be built with {shown_arguments} ({error}); "
            "correct these settings."
        ) from error


def _create_open_clip(
    open_clip: ModuleType,
    architecture: str,
    arguments: Mapping,
    state: Mapping[str, Tensor] | None,
) -> nn.Module:
    """A model of open_clip, from a temporary folder with its configuration and weights, if any."""
    keywords = dict(arguments)
    config = keywords.pop("model_cfg", None) or open_clip.get_model_config(architecture)
    keywords["load_weights"] = bool(state)
    keywords["pretrained_text"] = False
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "open_clip_config.json", {"model_cfg": config})
        if state:
            copies = {key: tensor.contiguous().clone() for key, tensor in state.items()}
            safetensors.torch.save_file(copies, Path(folder) / "open_clip_model.safetensors")
        return open_clip.create_model(f"local-dir:{folder}", **keywords)


def embedding_width(architecture: str, arguments: Mapping) -> int:
    """Width of an open_clip model's image and text features."""
    import open_clip

    config = arguments.get("model_cfg") or open_clip.get_model_config(architecture)
    return config["embed_dim"]


class OpenClipClassifier(nn.Module):
    """A visual tower of open_clip with a head on its unit-norm features (N, width).

    It has the methods of timm's networks that the workflow calls.
    """

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
        features = model.forward_features(images)
        return model.forward_head(features, pre_logits=True).flatten(1)


def head_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Named parameters of the network's head, or of its two heads if it was distilled."""
    classifier = model.get_classifier()
    heads = classifier if isinstance(classifier, tuple) else (classifier,)
    ids_in_heads = {id(parameter) for head in heads for parameter in head.parameters()}
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if id(parameter) in ids_in_heads
    ]


def load(
    folder: Path, device: torch.device, dropout: float = 0.0, drop_path: float = 0.0
) -> tuple[nn.Module, dict]:
    """A models job's network with its pretrained weights, and the facts in its model.json.

    The network is on the device, channels last in memory, in evaluation mode. For dropout and
    drop_path, and for errors, see `build`.
    """
    facts = read_json(folder / "model.json")
    arguments = facts.get("arguments", NO_ARGUMENTS)
    check_arguments(facts["library"], arguments, str(folder / "model.json"))
    model = build(
        facts["library"],
        facts["architecture"],
        facts["num_classes"],
        dropout,
        drop_path,
        arguments,
    )
    model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"), strict=True)
    return model.to(device, memory_format=torch.channels_last), facts


def write_model(
    model: nn.Module, entry: Mapping, facts: Mapping, weights: Path, description: Path
) -> None:
    """Write a network's state dict as safetensors, and facts as JSON, as `load` reads them.

    Args:
        entry: the model's catalogue entry, of which some facts are written.
        facts: further facts.
        weights, description: the files to write.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, weights)
    described = {key: entry[key] for key in DESCRIBED_FACTS}
    write_json(description, {**described, **facts})
