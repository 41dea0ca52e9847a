"""Reading of weights that others made, and loading by the library's own conversion of keys."""

import contextlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple
from unittest.mock import patch

import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.base.progress import log
from rib.config.model_arguments import MOST_CLASSES, check_arguments
from rib.data.archives import WEIGHTS, archive_members
from rib.models.network import NUM_CLASSES, create

BY_ORDER = "by_order"
WRAPPED = "module."  # prefix of the names that torch's DistributedDataParallel gives
IMAGE_TOWER = "visual."  # prefix of the image tower's tensors in a model of open_clip
# Arguments of create_model that set the side of the input.
RESIZING = ("img_size", "force_image_size")
# Times the size of a file that its tensors may have. Several names may share a tensor, as tied
# weights do (twice, of an embedding and a head); in a file where each byte is used more often than
# this on average, numbers are made up.
MOST_SHARED = 2
SHOWN = 600  # characters of what a library says of weights that don't fit
# What the libraries raise for weights that don't fit.
LOADING_ERRORS = (
    RuntimeError,
    KeyError,
    ValueError,
    AttributeError,
    IndexError,
    AssertionError,
)


def read_state(file: Path, member: str | None, name: str) -> dict[str, Tensor]:
    """Tensors by name from safetensors, or from a pickle that torch reads with weights_only.

    Args:
        file: a .safetensors, .pth or .bin file, or an archive with such a file.
        member: name of that file in the archive; None if there is no archive. If `file` is itself
            .safetensors, it is read whatever the member.
        name: of the model or run, for messages.

    Raises:
        UserError: The file is missing, damaged or contains anything but a state dict.
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
        raise UserError(f"{model_and_file} {reason}; don't use this file.") from None
    state = _checked_state(loaded, model_and_file)
    _refuse_expanded(state, stored_bytes, model_and_file)
    if all(key.startswith(WRAPPED) for key in state):
        return {key.removeprefix(WRAPPED): tensor for key, tensor in state.items()}
    return state


def _archived_weights(archive: Path, member: str, name: str) -> bytes:
    """Content of a file of weights in an archive; a UserError if the archive lacks it.

    Args:
        member: path of the file in the archive.
    """
    for _, read_member in archive_members(archive, {member}, largest=WEIGHTS):
        return read_member()
    raise UserError(
        f"{name}: {archive} contains no '{member}'; correct weights.member in models.yaml."
    )


def _load_file(file: Path) -> object:
    """What a file of weights has, as its ending says: safetensors, otherwise a pickle."""
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    with open(file, "rb") as opened:
        return _unpickle(opened)


def _load_bytes(content: bytes, suffix: str) -> object:
    """What the content of a file of weights has, as the file's ending (`.safetensors`) says."""
    if suffix == ".safetensors":
        return safetensors.torch.load(content)
    return _unpickle(io.BytesIO(content))


def _unpickle(file: BinaryIO) -> object:
    """What torch reads from a pickle without running code; a ValueError if it is compressed."""
    if zipfile.is_zipfile(file):
        _refuse_compressed(zipfile.ZipFile(file))
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):
        return torch.load(file, map_location="cpu", weights_only=True)


def _refuse_compressed(archive: zipfile.ZipFile) -> None:
    """Raise a ValueError if the tensors of a file that torch saved are compressed."""
    for member in archive.infolist():
        is_code = "/code/" in member.filename  # of TorchScript
        if member.compress_type != zipfile.ZIP_STORED and not is_code:
            raise ValueError(
                "torch does not compress tensors, and would expand any number of bytes"
            )


def _why_unreadable(error: Exception) -> str:
    """What is wrong with a file that couldn't be loaded.

    The error itself is not shown: torch's messages, like its warnings, recommend less safe ways to
    load.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "contains other pickled objects than tensors, which are never loaded"
    if "TorchScript" in str(error):
        return "is a TorchScript archive, which contains code"
    return "is truncated, damaged or in another format"


def _checked_state(loaded: object, model_and_file: str) -> dict[str, Tensor]:
    """What was loaded from a file, if it is a dict of ordinary tensors by name, at least one.

    Args:
        loaded: whatever the file holds.
        model_and_file: for messages.

    Raises:
        UserError: it holds anything else.
    """
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
    """Whether an object is a tensor with all its numbers: not sparse, nested or without memory."""
    if not isinstance(entry, Tensor):
        return False
    return entry.layout == torch.strided and not entry.is_meta and not entry.is_nested


def _refuse_expanded(tensors: Mapping[str, Tensor], size: int, model_and_file: str) -> None:
    """Refuse tensors with more bytes than are stored for them, before anything copies them.

    A pickle states the shape of a tensor beside its storage. With strides of 0, or with overlapping
    ones, a few bytes are a tensor of any size, which takes no memory until it is copied.

    Args:
        size: of the file with the tensors, in bytes.
        model_and_file: for messages.
    """
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
    """The library's network with a published state dict and its own head, in evaluation mode.

    Keys are converted by the library, which also resizes position embeddings to another input size.

    Args:
        arguments: see rib.models.network.create; `num_classes` (timm) if the head must have so many
            outputs.
        keys: `by_name`, or `by_order` if the state dict has other names in the same order.
        name: of the model or run, for messages.

    Raises:
        UserError: A tensor is missing, unexpected, not finite, has another shape or type, or is not
            what the file says once it is loaded; or an argument is none that
            rib.config.model_arguments allows.
    """
    check_arguments(library, arguments, name)
    if library == "timm":
        # As many outputs as the weights have, unless the arguments say otherwise.
        arguments = {"num_classes": _checked_classes(state, architecture, name), **arguments}
    expected = create(library, architecture, arguments).state_dict()
    if keys == BY_ORDER and len(expected) < len(state):
        # The head, which can't be told by its name, is the one for ImageNet-1K.
        arguments = {**arguments, "num_classes": NUM_CLASSES}
        expected = create(library, architecture, arguments).state_dict()
    if keys == BY_ORDER and len(expected) == len(state):
        # The network's names, in place of those of the file.
        state = dict(zip(expected, state.values(), strict=True))
    if library == "open_clip" and all(key.startswith(IMAGE_TOWER) for key in state):
        # Of an image tower alone: the text tower, which is not used, stays random.
        state = {**_text_tower_of(expected), **state}
    _refuse_integers(state, expected, architecture, name)
    try:
        model, loads = _load(state, library, architecture, arguments)
    except LOADING_ERRORS as error:
        raise UserError(
            f"{name}: the weights ({len(state)} tensors) don't fit {library}'s {architecture} "
            f"({len(expected)} tensors, matched {keys}): {_shortened(error)}; "
            "correct the architecture, the head or the file."
        ) from error
    _refuse_infinite(model, name)
    is_resized = any(argument in arguments for argument in RESIZING)
    _check_loaded(model, loads, state, is_resized, name)
    return model.eval()


def _text_tower_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an open_clip model without those of its image tower."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(IMAGE_TOWER)}


def _refuse_infinite(model: nn.Module, name: str) -> None:
    """Raise a UserError unless all numbers of a network's tensors are finite."""
    for key, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{name}: '{key}' has NaN or infinite values; don't use these weights.")


def _checked_classes(state: Mapping[str, Tensor], architecture: str, name: str) -> int:
    """Outputs of the head in weights under timm's names; a UserError if they are too many."""
    classes = _published_classes(state, architecture)
    if classes > MOST_CLASSES:
        raise UserError(
            f"{name}: the weights have a head with {classes} outputs for the architecture "
            f"{architecture}, more than {MOST_CLASSES}; don't use them."
        )
    return classes


def _published_classes(state: Mapping[str, Tensor], architecture: str) -> int:
    """Outputs of the head in weights under timm's names; 0 if they have none.

    The head of a `resnet18` is `fc`, and `fc.weight` (1000, 512) has 1000 outputs.
    """
    from timm.models import get_pretrained_cfg

    record = get_pretrained_cfg(architecture)
    if record is None or not record.classifier:
        return 0
    # One name, or several for networks with a head for distillation.
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
    """Raise a UserError if weights have integers where the network has floating-point numbers."""
    for key, expected_tensor in expected.items():
        if key not in state or not expected_tensor.is_floating_point():
            continue
        if not state[key].is_floating_point():
            raise UserError(
                f"{name}: '{key}' is {state[key].dtype} in the weights, but "
                f"{expected_tensor.dtype} in {architecture}; don't use them."
            )


def _shortened(error: Exception) -> str:
    """What a library's error says after its first colon, in one line.

    Of more than SHOWN characters, the first and last ones are given.
    """
    in_one_line = " ".join(str(error).split())
    _, _, message = in_one_line.partition(": ")
    if not message:
        message = repr(error)
    if len(message) < SHOWN:
        return message
    beginning = message[: SHOWN // 2]
    end = message[-SHOWN // 2 :]
    return f"{beginning} ... {end}"


class Load(NamedTuple):
    """One call of a module's load_state_dict."""

    module: nn.Module
    state: Mapping[str, Tensor]  # under the names of the module
    missing: Sequence[str]
    unexpected: Sequence[str]


def _load(
    state: Mapping[str, Tensor], library: str, architecture: str, arguments: Mapping
) -> tuple[nn.Module, list[Load]]:
    """The library's network with a state dict, and what the library loaded into its modules."""
    if library != "timm":
        with _recorded_loads() as loads:
            model = create(library, architecture, arguments, state)
        return model, loads
    # timm loads these weights as if they were the published ones.
    overlay = {
        "state_dict": dict(state),
        "num_classes": arguments["num_classes"],
        "custom_load": False,
    }
    arguments = {**arguments, "pretrained": True, "pretrained_cfg_overlay": overlay}
    with _recorded_loads() as loads:
        model = create(library, architecture, arguments)
    _check_all_loaded(loads, architecture)
    return model, loads


def _check_all_loaded(loads: Sequence[Load], architecture: str) -> None:
    """Raise a RuntimeError if tensors are missing in a state dict, and warn of unused ones.

    timm loads some architectures without such a check.
    """
    unused_keys: list[str] = []
    missing_keys: list[str] = []
    for load in loads:
        unused_keys.extend(load.unexpected)
        missing_keys.extend(load.missing)
    if unused_keys:
        log.warning("%s doesn't use %s", architecture, ", ".join(unused_keys))
    if missing_keys:
        raise RuntimeError(f"timm: missing {', '.join(missing_keys)}")


@contextlib.contextmanager
def _recorded_loads() -> Iterator[list[Load]]:
    """A list that gets an entry for each call of load_state_dict within a `with` block.

    Calls of the libraries are recorded too.
    """
    loads: list[Load] = []
    load_state_dict = nn.Module.load_state_dict

    def load_and_record(
        module: nn.Module, state_dict: Mapping[str, Tensor], *args: bool, **kwargs: bool
    ) -> object:
        """Load as torch does, and note what was loaded."""
        incompatible_keys = load_state_dict(module, state_dict, *args, **kwargs)
        missing_keys, unexpected_keys = incompatible_keys
        loads.append(Load(module, dict(state_dict), missing_keys, unexpected_keys))
        return incompatible_keys

    with patch.object(nn.Module, "load_state_dict", load_and_record):
        yield loads


def _check_loaded(
    model: nn.Module,
    loads: Sequence[Load],
    state: Mapping[str, Tensor],
    is_resized: bool,
    name: str,
) -> None:
    """Check that a network's tensors are those of its weights file, and that nothing replaced them.

    This is done once, where foreign weights enter a result: by the job that converts, imports or
    exports them. Later jobs read what it stored, whose hash is checked. Equal means equal in the
    network's type of numbers.

    The library may rename tensors and change their shapes before it loads them (heads, position
    embeddings). What it loaded is compared with the network, and with the file as far as name and
    shape are the same there. If it renamed any, a name may mean another tensor in the file, so only
    what it loaded is compared.

    Args:
        loads: what was loaded; the first load of the whole network counts.
        is_resized: whether the network was built for another input size; then the library may
            resize after loading.

    Raises:
        UserError: A tensor has other values.
    """
    loaded_state = _first_load_of(model, loads, name)
    names_are_kept = loaded_state.keys() <= state.keys()
    for key, tensor in model.state_dict().items():
        if key not in loaded_state:
            continue
        loaded_tensor = loaded_state[key]
        if loaded_tensor.shape == tensor.shape:
            is_as_loaded = _same_values(tensor, loaded_tensor)
        else:
            is_as_loaded = is_resized
        is_as_in_file = True
        if names_are_kept and state[key].shape == tensor.shape:
            is_as_in_file = _same_values(tensor, state[key])
        if not is_as_loaded or not is_as_in_file:
            raise UserError(
                f"{name}: once loaded, '{key}' is not what the weights file says; "
                "remove the model's arguments or don't use this model."
            )


def _first_load_of(model: nn.Module, loads: Sequence[Load], name: str) -> Mapping[str, Tensor]:
    """The first state dict that was loaded into the whole network; a UserError if there is none."""
    for load in loads:
        if load.module is model:
            return load.state
    raise UserError(
        f"{name}: the library loaded none of the weights; correct the model's architecture."
    )


def _same_values(tensor: Tensor, reference: Tensor) -> bool:
    """Whether two tensors of a shape are equal in the first one's type of numbers."""
    return torch.equal(tensor, reference.to(tensor.dtype))
