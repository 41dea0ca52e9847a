"""Safe reading of published weights, and loading with the library's conversion of keys."""

import io
import pickle
import textwrap
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from timm.models import clean_state_dict, get_pretrained_cfg
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.data.archives import WEIGHTS, archive_members
from rib.models.network import NUM_CLASSES, create
from rib.models.training_layouts import CONTAINERS
from rib.schema.model_arguments import check_arguments

BY_ORDER = "by_order"
IMAGE_TOWER = "visual."  # prefix of the image tower's tensors in a model of open_clip
# Largest ratio of the tensors' bytes to the file's. Tied weights (an embedding and a head) use
# bytes twice; a larger ratio on average is made up, to fill the memory.
MOST_SHARED = 2
SHOWN = 600  # shown characters of a library's error
MARK = 77.0  # no published tensor consists of this number alone
# Errors of the libraries for weights that don't fit.
LOADING_ERRORS = (
    RuntimeError,
    KeyError,
    ValueError,
    AttributeError,
    IndexError,
    AssertionError,
)


def read_state(
    file: Path, member: str | None, name: str, *, of_training: bool = False
) -> dict[str, Tensor]:
    """Tensors by name from safetensors, or from a pickle that torch reads with weights_only.

    Args:
        file: a .safetensors, .pth or .bin file, or an archive with such a file.
        member: path of the file in the archive; ignored if `file` is a .safetensors file.
        name: of the model, for messages.
        of_training: the file was written by somebody's training. Its state dict may be in one of
            rib.models.training_layouts.CONTAINERS; of a whole pickled network the message says
            how its owner saves the state dict.

    Raises:
        UserError: the file is damaged or contains anything but a state dict, or the archive is
            missing.
        OSError: the file, not in an archive, is missing or can't be read.
    """
    model_and_file = f"{name}: {file}"
    content = None
    if member is not None and file.suffix != ".safetensors":
        content = _archived_weights(file, member, name)
    try:
        if member is not None and content is not None:
            loaded = _load_bytes(content, Path(member).suffix)
            stored_bytes = len(content)
        else:
            loaded = _load_file(file)
            stored_bytes = file.stat().st_size
    except (UserError, MemoryError, OSError):
        raise
    except Exception as error:
        reason = _why_unreadable(error)
        advice = "don't use this file"
        if of_training and isinstance(error, pickle.UnpicklingError):
            advice = f"if it is your own network, {_how_to_save_state(file)}"
        raise UserError(f"{model_and_file} {reason}; {advice}.") from None
    if of_training:
        loaded = _without_container(loaded)
    state = _checked_state(loaded, model_and_file)
    _refuse_expanded(state, stored_bytes, model_and_file)
    return clean_state_dict(state)


def _archived_weights(archive: Path, member: str, name: str) -> bytes:
    """Content of one file in an archive; `name` is the model's, for the message."""
    for _, read_member in archive_members(archive, {member}, largest=WEIGHTS):
        return read_member()
    raise UserError(
        f"{name}: {archive} contains no '{member}'; correct weights.member in models.yaml."
    )


def _load_file(file: Path) -> object:
    """Content of a weights file, which may be no state dict."""
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    with open(file, "rb") as opened:
        return _unpickle(opened)


def _load_bytes(content: bytes, suffix: str) -> object:
    """Like `_load_file`, for a file from an archive."""
    if suffix == ".safetensors":
        return safetensors.torch.load(content)
    return _unpickle(io.BytesIO(content))


def _unpickle(file: BinaryIO) -> object:
    """Content of a pickle, read without running code; a ValueError if it is compressed."""
    if zipfile.is_zipfile(file):
        _refuse_compressed(zipfile.ZipFile(file))
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):
        return torch.load(file, map_location="cpu", weights_only=True)


def _refuse_compressed(archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        is_code = "/code/" in member.filename  # TorchScript, which torch.load refuses
        if member.compress_type != zipfile.ZIP_STORED and not is_code:
            raise ValueError(
                "torch does not compress tensors, and would expand any number of bytes"
            )


def _why_unreadable(error: Exception) -> str:
    """End of a sentence about a file, such as `is truncated, damaged or in another format`."""
    # torch's messages are not shown: they recommend less safe ways to load.
    if isinstance(error, pickle.UnpicklingError):
        return "contains other pickled objects than tensors, which are never loaded"
    if "TorchScript" in str(error):
        return "is a TorchScript archive, which contains code"
    return "is truncated, damaged or in another format"


def _how_to_save_state(file: Path) -> str:
    """What the owner of a whole pickled network does, as the end of a sentence."""
    # An error is printed on one line, so semicolons are between the statements.
    reader = f"pickle.load(open({file.name!r}, 'rb'))"
    if zipfile.is_zipfile(file):  # torch.save wrote it, not pickle.dump
        reader = f"torch.load({file.name!r}, map_location='cpu', weights_only=False)"
    state_file = f"{file.stem}-state.pth"
    return (
        f"run beside its code: import pickle, torch; network = {reader}; "
        f"torch.save(network.state_dict(), {state_file!r}) and use that file"
    )


def _without_container(loaded: object) -> object:
    """The state dict of {"epoch": 3, "state_dict": {...}}; other objects as they are."""
    if isinstance(loaded, dict):
        for container in CONTAINERS:
            if isinstance(loaded.get(container), dict):
                return loaded[container]
    return loaded


def _checked_state(loaded: object, model_and_file: str) -> dict[str, Tensor]:
    """`loaded` if it is a dict of ordinary tensors by name, at least one."""
    other_objects = []
    if isinstance(loaded, dict):
        for key, entry in loaded.items():
            if not isinstance(key, str):
                other_objects.append(f"{type(key).__name__} in place of a name")
            elif not _is_ordinary_tensor(entry):
                other_objects.append(f"'{key}' ({type(entry).__name__})")
        if loaded and not other_objects:
            return loaded
    content = "no named tensors"
    if other_objects:
        content = ", ".join(dict.fromkeys(other_objects))[:200]
    raise UserError(
        f"{model_and_file} is a {type(loaded).__name__} with {content}; save its state dict, "
        "tensors by name, as .safetensors and use that file."
    )


def _is_ordinary_tensor(entry: object) -> bool:
    """A tensor with all its numbers: not sparse, nested or without memory."""
    if not isinstance(entry, Tensor):
        return False
    return entry.layout == torch.strided and not entry.is_meta and not entry.is_nested


def _refuse_expanded(tensors: Mapping[str, Tensor], size: int, model_and_file: str) -> None:
    """Raise a UserError if tensors are larger than what a file of `size` bytes stores."""
    # A pickle states a tensor's shape and strides beside its storage. With strides of 0 or that
    # overlap, a few bytes are a tensor of any size, which takes memory only when it is copied.
    total = 0
    for key, tensor in tensors.items():
        tensor_bytes = tensor.numel() * tensor.element_size()
        stored_bytes = tensor.untyped_storage().nbytes()
        if tensor_bytes > stored_bytes:
            raise UserError(
                f"{model_and_file}: '{key}' has {in_bytes(tensor_bytes)}, but only "
                f"{in_bytes(stored_bytes)} are stored for it; don't use this file, or save its "
                "tensors as .safetensors."
            )
        total += tensor_bytes
    if total > MOST_SHARED * size:
        raise UserError(
            f"{model_and_file}: its tensors have {in_bytes(total)}, more than {MOST_SHARED} times "
            f"the {in_bytes(size)} of the file; don't use this file, or save its tensors as "
            ".safetensors."
        )


def with_weights(
    state: Mapping[str, Tensor],
    library: str,
    architecture: str,
    arguments: Mapping,
    keys: str,
    name: str,
) -> nn.Module:
    """The library's network with a published state dict and its head, in evaluation mode.

    The library converts keys, and resizes position embeddings to another input size.

    Args:
        arguments: keyword arguments of the library's create_model, such as {"img_size": 384};
            `num_classes` (timm) if the head must have this number of outputs.
        keys: `by_name`, or `by_order` if the state dict has other names in the same order.
        name: of the model, for messages.

    Raises:
        UserError: a tensor is missing, unexpected, not finite, or has another shape or type; or
            rib.schema.model_arguments doesn't allow an argument.
    """
    if library == "timm":
        # Unless the arguments say otherwise, as many outputs as the weights have.
        arguments = {"num_classes": _published_classes(state, architecture), **arguments}
    check_arguments(library, arguments, name)
    expected = create(library, architecture, arguments).state_dict()
    if keys == BY_ORDER and len(expected) < len(state):
        # With other names the head can't be found, so it must be ImageNet-1K's.
        arguments = {**arguments, "num_classes": NUM_CLASSES}
        expected = create(library, architecture, arguments).state_dict()
    if keys == BY_ORDER and len(expected) == len(state):
        # The network's names in place of the file's.
        state = dict(zip(expected, state.values(), strict=True))
    if library == "open_clip" and all(key.startswith(IMAGE_TOWER) for key in state):
        # Weights of an image tower alone: the text tower, which is not used, stays random.
        state = {**_text_tower_of(expected), **state}
    _refuse_integers(state, expected, architecture, name)
    try:
        if library == "timm":
            model = _load_timm(state, architecture, arguments)
        else:
            model = create(library, architecture, arguments, state)
    except LOADING_ERRORS as error:
        raise UserError(
            f"{name}: the weights ({len(state)} tensors) don't fit {library}'s {architecture} "
            f"({len(expected)} tensors, matched {keys}){_first_differences(state, expected)}: "
            f"{textwrap.shorten(str(error), SHOWN)}; correct the architecture, the head or the "
            "file."
        ) from error
    _refuse_infinite(model, name)
    return model.eval()


def _first_differences(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Such as `, first missing 'conv1.weight', first unexpected 'net.conv1.weight'`."""
    # The library's message may be cut before it comes to the unexpected keys.
    missing_keys = [key for key in expected if key not in state]
    unexpected_keys = [key for key in state if key not in expected]
    text = ""
    if missing_keys:
        text += f", first missing '{missing_keys[0]}'"
    if unexpected_keys:
        text += f", first unexpected '{unexpected_keys[0]}'"
    return text


def _text_tower_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of an open_clip model outside its image tower."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(IMAGE_TOWER)}


def _refuse_infinite(model: nn.Module, name: str) -> None:
    for key, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{name}: '{key}' has NaN or infinite values; don't use these weights.")


def _published_classes(state: Mapping[str, Tensor], architecture: str) -> int:
    """Outputs of the head: 1000 if `fc.weight` of a `resnet18` is (1000, 512); 0 without head."""
    record = get_pretrained_cfg(architecture)
    if record is None or not record.classifier:
        return 0
    # One name, or two for distilled networks.
    classifier: str | Sequence[str] = record.classifier
    names_of_heads = [classifier] if isinstance(classifier, str) else classifier
    for name_of_head in names_of_heads:
        weight = state.get(f"{name_of_head}.weight")
        if weight is not None and weight.ndim:  # a scalar is refused when it is loaded
            return len(weight)
    return 0


def _refuse_integers(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], architecture: str, name: str
) -> None:
    """Raise a UserError for integers in place of floats, which loading would silently convert."""
    for key, expected_tensor in expected.items():
        if key not in state or not expected_tensor.is_floating_point():
            continue
        if not state[key].is_floating_point():
            raise UserError(
                f"{name}: '{key}' is {state[key].dtype} in the weights, but "
                f"{expected_tensor.dtype} in {architecture}; don't use them."
            )


def _load_timm(state: Mapping[str, Tensor], architecture: str, arguments: Mapping) -> nn.Module:
    """A network with weights as timm loads published ones; a RuntimeError if some are missing."""
    generator_state = torch.get_rng_state()
    model = _create_with_state(state, architecture, arguments)
    if model.state_dict().keys() <= state.keys():
        return model
    # timm renames tensors, and loads some architectures although tensors are missing. A missing
    # tensor keeps its initial values, so it is the same after loading other numbers. Zeros are no
    # sign of this: timm adds a bias of zeros if the file's head has none.
    marked_state = {key: torch.full_like(tensor, MARK) for key, tensor in state.items()}
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator_state)
        marked_model = _create_with_state(marked_state, architecture, arguments)
    marked = marked_model.state_dict()
    missing_keys = [
        key
        for key, tensor in model.state_dict().items()
        if tensor.is_floating_point() and tensor.any() and torch.equal(tensor, marked[key])
    ]
    if missing_keys:
        raise RuntimeError(f"missing {', '.join(missing_keys)}")
    return model


def _create_with_state(
    state: Mapping[str, Tensor], architecture: str, arguments: Mapping
) -> nn.Module:
    # The overlay makes timm take the state dict for its published weights, whose names it converts.
    overlay = {
        "state_dict": dict(state),
        "num_classes": arguments["num_classes"],
        "custom_load": False,
    }
    arguments = {**arguments, "pretrained": True, "pretrained_cfg_overlay": overlay}
    return create("timm", architecture, arguments)
