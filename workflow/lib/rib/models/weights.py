"""Reading of weights that others made, and loading by the library's own conversion of keys."""

import contextlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
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

BY_ORDER, WRAPPED = "by_order", "module."
RESIZING = (
    "img_size",
    "force_image_size",
)  # arguments of create_model that set the side of the input
# Times the size of a file that its tensors may have. Several names may share a tensor, as tied weights do (twice, of an
# embedding and a head); in a file where each byte is used more often than this on average, numbers are made up.
MOST_SHARED = 2
SHOWN = 600  # characters of what a library says of weights that don't fit


def read_state(file: Path, member: str | None, name: str) -> dict[str, Tensor]:
    """Tensors by name from safetensors, or from a pickle that torch reads with weights_only.

    The file is .safetensors, .pth or .bin, or an archive with such a file, the `member`; messages give the name, of the
    model or run. Raises a UserError if the file is missing, damaged or contains anything but a state dict.
    """
    data = None
    if member is not None and file.suffix != ".safetensors":
        data = next((read() for _, read in archive_members(file, {member}, largest=WEIGHTS)), None)
        if data is None:
            raise UserError(
                f"{name}: {file} contains no '{member}'; correct weights.member in models.yaml."
            )
    try:
        if (Path(member) if data is not None else file).suffix == ".safetensors":
            found = (
                safetensors.torch.load_file(file) if data is None else safetensors.torch.load(data)
            )
        else:
            with open(file, "rb") if data is None else io.BytesIO(data) as opened:
                found = _unpickle(opened)
    except (UserError, MemoryError, OSError):
        raise
    except (
        Exception
    ) as error:  # not shown: torch's messages, like its warnings, recommend less safe ways to load
        why = "is truncated, damaged or in another format"
        if isinstance(error, pickle.UnpicklingError):
            why = "contains other pickled objects than tensors, which are never loaded"
        elif "TorchScript" in str(error):
            why = "is a TorchScript archive, which contains code"
        raise UserError(f"{name}: {file} {why}; don't use this file.") from None
    tensors = found if isinstance(found, dict) else {}
    others = [
        f"'{key}' ({type(value).__name__})"
        for key, value in tensors.items()
        if not isinstance(value, Tensor)
        or value.layout != torch.strided
        or value.is_meta
        or value.is_nested
    ]
    if others or not tensors:
        raise UserError(
            f"{name}: {file} is a {type(found).__name__} with {', '.join(others)[:200] or 'no named tensors'}; save "
            "its state dict, tensors by name, as .safetensors and use that file."
        )
    _refuse_expanded(tensors, file.stat().st_size if data is None else len(data), f"{name}: {file}")
    wrapped = all(
        key.startswith(WRAPPED) for key in tensors
    )  # as torch's DistributedDataParallel names them
    return (
        {key.removeprefix(WRAPPED): tensor for key, tensor in tensors.items()}
        if wrapped
        else tensors
    )


def _refuse_expanded(tensors: Mapping[str, Tensor], size: int, where: str) -> None:
    """Refuse tensors with more bytes than are stored for them, before anything copies them.

    A pickle states the shape of a tensor beside its storage. With strides of 0, or with overlapping ones, a few bytes
    are a tensor of any size, which takes no memory until it is copied.

    Args:
        size: of the file with the tensors, in bytes.
        where: model and file, for messages.
    """
    total = 0
    for key, tensor in tensors.items():
        tensor_bytes = tensor.numel() * tensor.element_size()
        stored_bytes = tensor.untyped_storage().nbytes()
        if tensor_bytes > stored_bytes:
            raise UserError(
                f"{where}: '{key}' has {in_bytes(tensor_bytes)}, but only {in_bytes(stored_bytes)} are stored for it; "
                "don't use this file, or save its tensors as .safetensors."
            )
        total += tensor_bytes
    if total > MOST_SHARED * size:
        raise UserError(
            f"{where}: its tensors have {in_bytes(total)}, more than {MOST_SHARED} times the {in_bytes(size)} of the "
            "file; don't use this file, or save its tensors as .safetensors."
        )


def _unpickle(file: io.BufferedIOBase) -> object:
    parts = zipfile.ZipFile(file).infolist() if zipfile.is_zipfile(file) else []
    if any(
        part.compress_type and "/code/" not in part.filename for part in parts
    ):  # code: of TorchScript
        raise ValueError("torch does not compress tensors, and would expand any number of bytes")
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):
        return torch.load(file, map_location="cpu", weights_only=True)


def with_weights(
    state: Mapping[str, Tensor],
    library: str,
    architecture: str,
    arguments: Mapping,
    keys: str,
    name: str,
) -> nn.Module:
    """The library's network with a published state dict and its own head, in evaluation mode.

    Keys are converted by the library, which also resizes position embeddings to another input size. Raises a UserError
    if a tensor is missing, unexpected, not finite, has another shape or type, or is not what the file says once it is
    loaded, and if an argument is none that rib.config.model_arguments allows.

    Args:
        arguments: see rib.models.network.create; `num_classes` (timm) if the head must have so many outputs.
        keys: `by_name`, or `by_order` if the state dict has other names in the same order.
    """
    check_arguments(library, arguments, name)
    if library == "timm":
        classes = _published_classes(state, architecture)
        if classes > MOST_CLASSES:
            raise UserError(
                f"{name}: the weights have a head with {classes} outputs for the architecture {architecture}, more than "
                f"{MOST_CLASSES}; don't use them."
            )
        arguments = {"num_classes": classes, **arguments}
    model = create(library, architecture, arguments)
    if keys == BY_ORDER and len(model.state_dict()) < len(state):
        arguments["num_classes"] = NUM_CLASSES
        model = create(library, architecture, arguments)
    if keys == BY_ORDER and len(model.state_dict()) == len(state):
        state = dict(zip(model.state_dict(), state.values(), strict=True))
    wanted = model.state_dict()
    if library == "open_clip" and all(
        key.startswith("visual.") for key in state
    ):  # with a random text tower
        state = {
            key: tensor for key, tensor in wanted.items() if not key.startswith("visual.")
        } | state
    for key in wanted.keys() & state.keys():
        if wanted[key].is_floating_point() and not state[key].is_floating_point():
            raise UserError(
                f"{name}: '{key}' is {state[key].dtype} in the weights, but {wanted[key].dtype} in {architecture}; don't use them."
            )
    try:
        model, loads = _load(state, library, architecture, arguments)
    except (
        RuntimeError,
        KeyError,
        ValueError,
        AttributeError,
        IndexError,
        AssertionError,
    ) as error:
        what = " ".join(str(error).split()).partition(": ")[2] or repr(error)
        what = what if len(what) < SHOWN else f"{what[: SHOWN // 2]} ... {what[-SHOWN // 2 :]}"
        raise UserError(
            f"{name}: the weights ({len(state)} tensors) don't fit {library}'s {architecture} ({len(wanted)} tensors, "
            f"matched {keys}): {what}; correct the architecture, the head or the file."
        ) from error
    for key, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{name}: '{key}' has NaN or infinite values; don't use these weights.")
    resized = any(argument in arguments for argument in RESIZING)
    _check_loaded(model, loads, state, resized, name)
    return model.eval()


class Load(NamedTuple):
    """One call of a module's load_state_dict."""

    module: nn.Module
    state: Mapping[str, Tensor]  # under the names of the module
    missing: Sequence[str]
    unexpected: Sequence[str]


def _load(
    state: Mapping[str, Tensor], library: str, architecture: str, arguments: Mapping
) -> tuple[nn.Module, list[Load]]:
    """The library's network with a state dict, and what the library loaded into it and its parts, in order."""
    if library != "timm":
        with _recorded_loads() as loads:
            return create(library, architecture, arguments, state), loads
    overlay = {
        "state_dict": dict(state),
        "num_classes": arguments["num_classes"],
        "custom_load": False,
    }
    arguments = {**arguments, "pretrained": True, "pretrained_cfg_overlay": overlay}
    with _recorded_loads() as loads:
        model = create(library, architecture, arguments)
    # timm loads some architectures without a check.
    if unused := [key for load in loads for key in load.unexpected]:
        log.warning("%s doesn't use %s", architecture, ", ".join(unused))
    if missing := [key for load in loads for key in load.missing]:
        raise RuntimeError(f"timm: missing {', '.join(missing)}")
    return model, loads


@contextlib.contextmanager
def _recorded_loads() -> Iterator[list[Load]]:
    """A list to which each call of load_state_dict is added, also by the libraries."""
    loads = []
    load_state_dict = nn.Module.load_state_dict

    def load_and_record(module, state_dict, *more, **options):
        difference = load_state_dict(module, state_dict, *more, **options)
        loads.append(Load(module, dict(state_dict), *difference))
        return difference

    with patch.object(nn.Module, "load_state_dict", load_and_record):
        yield loads


def _check_loaded(
    model: nn.Module, loads: Sequence[Load], state: Mapping[str, Tensor], resized: bool, name: str
) -> None:
    """Check that a network's tensors are those of its weights file, and that nothing replaced them afterwards.

    This is done once, where foreign weights enter a result: by the job that converts, imports or exports them. Later
    jobs read what it stored, whose hash is checked. Equal means equal in the network's type of numbers.

    The library may rename tensors and change their shapes before it loads them (heads, position embeddings). What it
    loaded is compared with the network, and with the file as far as name and shape are the same there. If it renamed
    any, a name may mean another tensor in the file, so only what it loaded is compared.

    Args:
        loads: what was loaded; the first load of the whole network counts.
        resized: whether the network was built for another input size; then the library may resize after loading.

    Raises:
        UserError: A tensor has other values.
    """
    loaded = next((load.state for load in loads if load.module is model), None)
    if loaded is None:
        raise UserError(
            f"{name}: the library loaded none of the weights; correct the model's architecture."
        )
    names_are_kept = loaded.keys() <= state.keys()
    for key, tensor in model.state_dict().items():
        if key not in loaded:
            continue
        fits = loaded[key].shape == tensor.shape
        replaced = not _same_values(tensor, loaded[key]) if fits else not resized
        if names_are_kept and state[key].shape == tensor.shape:
            replaced = replaced or not _same_values(tensor, state[key])
        if replaced:
            raise UserError(
                f"{name}: once loaded, '{key}' is not what the weights file says; "
                "remove the model's arguments or don't use this model."
            )


def _same_values(tensor: Tensor, given: Tensor) -> bool:
    return torch.equal(tensor, given.to(tensor.dtype))


def _published_classes(state: Mapping[str, Tensor], architecture: str) -> int:
    """Outputs of the head in weights under timm's names; 0 if they have none."""
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(architecture)
    classifier = (
        known and known.classifier
    ) or ()  # several for networks with a head for distillation
    names = [classifier] if isinstance(classifier, str) else classifier
    heads = [state[f"{name}.weight"] for name in names if f"{name}.weight" in state]
    return next(
        (len(head) for head in heads if head.ndim), 0
    )  # a scalar is refused when it is loaded
