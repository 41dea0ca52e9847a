"""Building and loading of networks."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.config.model_arguments import check_arguments
from rib.models.device import autocast
from rib.models.full_precision import FullPrecisionLinear, keep_precision, unit_norm

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


class Classifier(nn.Module):
    """The methods of timm's networks that the workflow calls, for the type checker.

    A network of timm has them without being an instance of this class.
    """

    num_classes: int  # number of outputs
    pretrained_cfg: dict  # what timm records of the network and its published weights

    def forward_features(self, images: Tensor) -> Tensor:
        """Features of images (N, 3, H, W), before pooling."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, outputs) of features; with `pre_logits` the input of the last layer."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Module:
        """The last layer, which gives the logits."""
        raise NotImplementedError


class OpenClipClassifier(Classifier):
    """A visual tower of open_clip with a head on its unit-norm features (N, width).

    It has the methods of timm's networks that the workflow calls.
    """

    def __init__(self, visual: nn.Module, width: int, num_classes: int = NUM_CLASSES):
        """Give a visual tower, whose features have `width` numbers, a head with random weights."""
        super().__init__()
        self.visual = visual
        self.head = FullPrecisionLinear(width, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """Features (N, width), each divided by its Euclidean norm, of images (N, 3, H, W)."""
        return unit_norm(self.visual(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, outputs) of features (N, width); with `pre_logits` the features themselves."""
        if pre_logits:
            return features
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of images (N, 3, H, W)."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.head


def build(
    library: str,
    architecture: str,
    num_classes: int = NUM_CLASSES,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    arguments: Mapping = NO_ARGUMENTS,
) -> Classifier:
    """A network with random weights and a head, in evaluation mode.

    The head computes in full precision, also where autocast is on (rib.models.full_precision).

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
        both_towers = create(library, architecture, arguments_with_device)
        image_tower = both_towers.get_submodule("visual")
        width = embedding_width(architecture, arguments)
        model: Classifier = OpenClipClassifier(image_tower, width, num_classes)
    else:
        timm_arguments = dict(arguments)
        # Not every architecture has these arguments, so they are passed only if set.
        if dropout:
            timm_arguments["drop_rate"] = dropout
        if drop_path:
            timm_arguments["drop_path_rate"] = drop_path
        timm_arguments["num_classes"] = num_classes
        model = cast(Classifier, create(library, architecture, timm_arguments))
        keep_precision(_heads(model))
    _subsample_first(model)
    return model.eval()


def _subsample_first(model: nn.Module) -> None:
    """Take the stride from 1x1 convolutions with few input channels, and subsample their input.

    A 1x1 convolution with stride 2 gives the same output as one without a stride that sees only
    each second row and column of its input. It is needed since oneDNN's gradient of the weights is
    wrong, or crashes, for a stride and few input channels, as in FastViT's stem (its issue 6035).
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d) or layer.in_channels >= SIMD_WIDTH:
            continue
        if layer.kernel_size == (1, 1) and layer.stride != (1, 1):
            vertical_stride, horizontal_stride = layer.stride
            layer.register_forward_pre_hook(_subsampling_hook(vertical_stride, horizontal_stride))
            layer.stride = (1, 1)


def _subsampling_hook(
    vertical_stride: int, horizontal_stride: int
) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
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
    _refuse_unknown_architecture(library, architecture, arguments)
    try:
        if library == "open_clip":
            return _create_open_clip(architecture, arguments, state)
        return _create_timm(architecture, arguments)
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


def _refuse_unknown_architecture(library: str, architecture: str, arguments: Mapping) -> None:
    """Raise a UserError if the library has no such architecture; see `create`."""
    if library == "open_clip":
        import open_clip

        version = open_clip.__version__
        is_known = "model_cfg" in arguments or architecture in open_clip.list_models()
    else:
        import timm

        version = timm.__version__
        is_known = timm.is_model(architecture)
    if not is_known:
        raise UserError(
            f"{library} {version} has no architecture '{architecture}'; correct it in models.yaml."
        )


def _create_timm(architecture: str, arguments: Mapping) -> nn.Module:
    """A network of timm, with random weights unless an argument says otherwise."""
    import timm

    return timm.create_model(architecture, **{"pretrained": False, **arguments})


def _create_open_clip(
    architecture: str, arguments: Mapping, state: Mapping[str, Tensor] | None
) -> nn.Module:
    """A model of open_clip with the weights in `state`, or with random ones.

    open_clip reads its configuration and weights from a folder, which is temporary here. Arguments
    are those of `create`.
    """
    import open_clip

    keywords = dict(arguments)
    config = keywords.pop("model_cfg", None)
    if not config:
        config = open_clip.get_model_config(architecture)
    keywords["load_weights"] = bool(state)
    # Without published weights of the text tower's own.
    keywords["pretrained_text"] = False
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "open_clip_config.json", {"model_cfg": config})
        if state:
            copies = {key: tensor.contiguous().clone() for key, tensor in state.items()}
            safetensors.torch.save_file(copies, Path(folder) / "open_clip_model.safetensors")
        model: nn.Module = open_clip.create_model(f"local-dir:{folder}", **keywords)
    return model


def embedding_width(architecture: str, arguments: Mapping) -> int:
    """Width of an open_clip model's image and text features, such as 512 for `ViT-B-32`.

    Args:
        arguments: see `create`.
    """
    import open_clip

    config = arguments.get("model_cfg")
    if not config:
        config = open_clip.get_model_config(architecture)
    width: int = config["embed_dim"]
    return width


def head_inputs(model: Classifier, images: Tensor) -> Tensor:
    """Features (N, d) that the last layer of a network gets for images (N, 3, H, W)."""
    with autocast(images.device):
        features = model.forward_features(images)
        return model.forward_head(features, pre_logits=True).flatten(1)


def head_parameters(model: Classifier) -> list[tuple[str, nn.Parameter]]:
    """Named parameters of the network's head, or of its two heads if it was distilled."""
    ids_in_heads: set[int] = set()
    for head in _heads(model):
        ids_in_heads.update(id(parameter) for parameter in head.parameters())
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if id(parameter) in ids_in_heads
    ]


def _heads(model: Classifier) -> tuple[nn.Module, ...]:
    """The network's head, or its two heads if it was distilled."""
    classifier = model.get_classifier()
    # timm gives a tuple for a network with a second head, for distillation.
    if isinstance(classifier, tuple):
        return classifier
    return (classifier,)


def load(
    folder: Path, device: torch.device, dropout: float = 0.0, drop_path: float = 0.0
) -> tuple[Classifier, dict]:
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
    # torch's types lack memory_format.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, facts


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
