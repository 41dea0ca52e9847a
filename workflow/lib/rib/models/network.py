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
from rib.models.device import autocast
from rib.models.full_precision import FullPrecisionLinear, keep_precision, unit_norm
from rib.schema.model_arguments import check_arguments

NUM_CLASSES = 1000  # ImageNet-1K's
SIMD_WIDTH = 16  # most float32 numbers in a vector register
NO_ARGUMENTS: Mapping = MappingProxyType({})
# Facts of the catalogue entry in model.json, in this order.
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

    timm's networks have them without being instances of this class.
    """

    num_classes: int  # number of outputs
    pretrained_cfg: dict  # timm's record of the network and its published weights

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
    """An open_clip image tower with a head, which gives it the methods of timm's networks.

    The head is random at first; its inputs are the tower's unit-norm features (N, width).
    """

    def __init__(self, visual: nn.Module, width: int, num_classes: int = NUM_CLASSES):
        super().__init__()
        self.visual = visual
        self.head = FullPrecisionLinear(width, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """Unit-norm features (N, width) of images (N, 3, H, W)."""
        return unit_norm(self.visual(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, outputs) of features; with `pre_logits` the features themselves."""
        if pre_logits:
            return features
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) of images (N, 3, H, W)."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.head


def build(
    library: str,
    architecture: str,
    num_classes: int = NUM_CLASSES,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    arguments: Mapping = NO_ARGUMENTS,
) -> Classifier:
    """A network with random weights, in evaluation mode; its head computes in float32.

    Args:
        library: `timm`, or `open_clip` for the image tower of one of its models.
        dropout: dropout probability before the network's classifier.
        drop_path: probability of skipping a residual block in training.
        arguments: keyword arguments of the library's create_model, such as {"img_size": 384}.

    Raises:
        UserError: the library lacks the architecture or doesn't support a rate or an argument, or
            rib.schema.model_arguments doesn't allow an argument.
    """
    check_arguments(library, arguments, architecture)
    if library == "open_clip":
        if dropout or drop_path:
            raise UserError(
                f"{architecture}: open_clip's towers have no dropout or drop_path; set both to 0."
            )
        # Without an explicit device, open_clip moves the model to the CPU.
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
    # oneDNN's gradient of the weights is wrong, or crashes, for 1x1 convolutions with a stride and
    # few input channels, as in FastViT's stem (oneDNN's issue 6035). Without a stride, such a
    # convolution gives the same output if it sees only each second row and column of its input.
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
    """Hook that replaces strides: for strides of 2 a layer gets each second row and column."""

    def subsample(layer: nn.Module, layer_inputs: tuple[Tensor]) -> tuple[Tensor]:
        # torch calls the layer with the returned inputs in place of its arguments.
        (images,) = layer_inputs
        return (images[..., ::vertical_stride, ::horizontal_stride],)

    return subsample


def create(
    library: str, architecture: str, arguments: Mapping, state: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """A network of timm or a whole model of open_clip, made by the library's create_model.

    Args:
        arguments: keyword arguments of create_model; `model_cfg` is the configuration of a model
            that open_clip doesn't list.
        state: state dict for open_clip to convert and load; None for random weights.

    Raises:
        UserError: the library lacks the architecture, or it doesn't support an argument.
    """
    _refuse_unknown_architecture(library, architecture, arguments)
    try:
        if library == "open_clip":
            return _create_open_clip(architecture, arguments, state)
        return _create_timm(architecture, arguments)
    except TypeError as error:
        # Without the workflow's own and long arguments.
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
    import timm

    return timm.create_model(architecture, **{"pretrained": False, **arguments})


def _create_open_clip(
    architecture: str, arguments: Mapping, state: Mapping[str, Tensor] | None
) -> nn.Module:
    """`create` for open_clip, which reads configuration and weights from a folder."""
    import open_clip

    keywords = dict(arguments)
    config = keywords.pop("model_cfg", None)
    if not config:
        config = open_clip.get_model_config(architecture)
    keywords["load_weights"] = bool(state)
    # Otherwise open_clip would download weights of some text towers.
    keywords["pretrained_text"] = False
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "open_clip_config.json", {"model_cfg": config})
        if state:
            copies = {key: tensor.contiguous().clone() for key, tensor in state.items()}
            safetensors.torch.save_file(copies, Path(folder) / "open_clip_model.safetensors")
        model: nn.Module = open_clip.create_model(f"local-dir:{folder}", **keywords)
    return model


def embedding_width(architecture: str, arguments: Mapping) -> int:
    """Width of an open_clip model's image and text features, such as 512 for `ViT-B-32`."""
    import open_clip

    config = arguments.get("model_cfg")
    if not config:
        config = open_clip.get_model_config(architecture)
    width: int = config["embed_dim"]
    return width


def head_inputs(model: Classifier, images: Tensor) -> Tensor:
    """Inputs (N, d) of a network's last layer for images (N, 3, H, W), to train it alone."""
    with autocast(images.device):
        features = model.forward_features(images)
        return model.forward_head(features, pre_logits=True).flatten(1)


def head_parameters(model: Classifier) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters of the head, or of both heads of a distilled network."""
    ids_in_heads: set[int] = set()
    for head in _heads(model):
        ids_in_heads.update(id(parameter) for parameter in head.parameters())
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if id(parameter) in ids_in_heads
    ]


def _heads(model: Classifier) -> tuple[nn.Module, ...]:
    classifier = model.get_classifier()
    # timm gives a tuple for a distilled network, which has two heads.
    if isinstance(classifier, tuple):
        return classifier
    return (classifier,)


def load(
    folder: Path, device: torch.device, dropout: float = 0.0, drop_path: float = 0.0
) -> tuple[Classifier, dict]:
    """A converted network with its pretrained weights, and the facts in its model.json.

    The network is on the device, channels last in memory, in evaluation mode. Facts are such as
    {"library": "timm", "architecture": "resnet18", "num_classes": 1000, "preprocessing": {...}}.

    Args:
        folder: output of the conversion, with model.json and weights.safetensors.

    Raises:
        UserError: the installed library can't build the network.
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
    """Write a network's state dict as safetensors, and facts as JSON.

    Args:
        entry: the model's catalogue entry; its DESCRIBED_FACTS, such as `name`, are written.
        facts: further facts, such as {"num_classes": 1000}.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, weights)
    described = {key: entry[key] for key in DESCRIBED_FACTS}
    write_json(description, {**described, **facts})
