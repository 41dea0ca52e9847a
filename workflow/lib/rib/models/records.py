"""Facts for catalogue entries of models, from timm, open_clip, a hub repository or a local folder.

A process of its own, since importing the libraries takes seconds:

    python -m rib.models.records [--library] FILE NAME...

writes the facts by name to FILE; with --library only what the libraries record, without asking the
hub.
"""

import argparse
import contextlib
import difflib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rib.base.errors import UserError
from rib.base.files import from_home, read_json, sha256, write_json
from rib.config.fields import is_whole
from rib.config.messages import show
from rib.config.model_arguments import check_arguments
from rib.config.model_names import RECORDS, Name, parse_name
from rib.data.hub import hub_problem

PACKAGES = {"timm": "timm", "open_clip": "open_clip_torch"}
PUBLISHED_CLASSES = 1000  # ImageNet-1K's
PROTOCOL_SIZE = 224  # pixels (arXiv 2410.21582)
# In the order in which the libraries look for them.
WEIGHTS = {
    "timm": ("model.safetensors", "pytorch_model.bin", "model.pth"),
    "open_clip": (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
    ),
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
UNKNOWN = "not stated"
# Attributes of a self-attention layer in timm and open_clip: projections of its own.
ATTENTION_PROJECTIONS = ("qkv", "q_proj", "out_proj")
HUB_REQUESTS = 8  # at the same time


@dataclass(frozen=True)
class HubRepository:
    """A repository of the hub at one commit."""

    name: str  # OWNER/NAME
    commit: str
    files: Mapping[str, Mapping]  # size and, of large files, digest, by path
    licence: str
    gated: bool  # whether its terms must be accepted before a download


def describe(names: Sequence[str], ask_hub: bool = True) -> dict[str, dict]:
    """Facts by name, as rib.config.entries.Model has them.

    Those of the libraries are cached by version.

    Raises:
        UserError: A name doesn't exist, its weights can't be used, or the hub can't be asked.
    """
    parsed_names = [parse_name(name) for name in names]
    facts_of_models = [_recorded_facts(name) for name in parsed_names]
    if ask_hub:
        with ThreadPoolExecutor(HUB_REQUESTS) as pool:
            facts_of_models = list(pool.map(_facts_with_hub, parsed_names, facts_of_models))
    return {
        name: _facts_of_schema(facts) for name, facts in zip(names, facts_of_models, strict=True)
    }


def _facts_of_schema(facts: Mapping) -> dict:
    """Facts without those that are None, and without the one that only this module uses."""
    return {key: fact for key, fact in facts.items() if fact is not None and key != "tokenizer_of"}


@contextlib.contextmanager
def _errors_name_model(name: Name) -> Iterator[None]:
    """Turn all errors within a `with` block into UserErrors whose sentence names the model."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config, models: '{name.text}': {error}") from error
    except Exception as error:  # of the libraries, the hub's client and what they read
        raise UserError(f"config, models: '{name.text}': {hub_problem(error)}.") from error


def _recorded_facts(name: Name) -> dict:
    """Facts of a library or a folder; none of a model of the hub, which is not asked."""
    with _errors_name_model(name):
        if name.kind in PACKAGES:
            return _cached_library_facts(name)
        if name.kind == "local-dir":
            return _folder_facts(name)
        return {}


def _cached_library_facts(name: Name) -> dict:
    """Facts of the library, from the cache if its installed version was asked before."""
    version = importlib.metadata.version(PACKAGES[name.kind])
    cache_file = RECORDS / f"{name.kind}-{version}.json"
    facts_by_name: dict[str, dict] = {}
    if cache_file.is_file():
        facts_by_name = read_json(cache_file)
    if name.text not in facts_by_name:
        if name.kind == "timm":
            facts_by_name[name.text] = _timm_registry_facts(name)
        else:
            facts_by_name[name.text] = _open_clip_registry_facts(name)
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache_file, facts_by_name)
    return facts_by_name[name.text]


def _timm_registry_facts(name: Name) -> dict:
    """Facts of a model that the installed timm lists.

    The name may have the tag of its weights (`timm/resnet18.a1_in1k`) or not (`timm/resnet18`).
    """
    from timm.models import get_pretrained_cfg, list_pretrained

    listed_names = list_pretrained()
    is_listed = name.rest in listed_names
    is_listed_with_tag = any(listed.startswith(f"{name.rest}.") for listed in listed_names)
    if not is_listed and not is_listed_with_tag:
        raise _unknown_model_error(name, listed_names)
    registered = get_pretrained_cfg(name.rest)
    assert registered is not None  # of a listed model
    record = registered.to_dict()
    if not record.get("hf_hub_id"):
        raise UserError(
            "timm knows no repository of the hub with its weights; choose another model."
        )
    path = record.get("hf_hub_filename") or WEIGHTS["timm"][0]
    facts = _timm_facts(record["architecture"], record, {})
    return {**facts, "source": _hub_source(name, record["hf_hub_id"], path)}


def _timm_facts(architecture: str, record: Mapping, arguments: Mapping) -> dict:
    """Facts from a record of timm, in its registry or in a config.json.

    Args:
        architecture: such as `resnet18`.
        record: what timm states of the weights: `test_input_size`, `mean`, `num_classes` and so on.
        arguments: keyword arguments with which the network is built, such as {"img_size": 384}.

    Returns:
        head, preprocessing and licence of a model's entry, what describes its network, and
        `resized_by`: the argument with which it is built for images of another size, or None for a
        network that takes images of any size.
    """
    recorded_input = _timm_input(record, arguments)
    channels, height, width = recorded_input.size
    is_square_rgb = channels == 3 and height == width
    side = height if is_square_rgb else None
    crop_mode = record.get("crop_mode") or "center"
    # A network whose input size is fixed must be built anew for another one.
    is_built_for_size = bool(arguments.get("img_size") or record.get("fixed_input_size"))
    return {
        "head": "published" if _has_imagenet_head(record) else "none",
        "preprocessing": _preprocessing(record, side, recorded_input.crop_pct, crop_mode),
        "licence": record.get("license") or UNKNOWN,
        "resized_by": "img_size" if is_built_for_size else None,
        **_network_facts("timm", architecture, arguments),
    }


def _has_imagenet_head(record: Mapping) -> bool:
    """Whether weights have outputs for ImageNet-1K's classes, by timm's record of them.

    Without names of labels, timm means ImageNet's.
    """
    from timm.data import ImageNetInfo

    label_names = record.get("label_names")
    has_imagenet_labels = label_names is None or label_names == ImageNetInfo().label_names()
    return record.get("num_classes") == PUBLISHED_CLASSES and has_imagenet_labels


class TimmInput(NamedTuple):
    """The images that timm records for a network."""

    size: Sequence[int]  # channels, height and width, the latter in pixels
    crop_pct: float  # fraction of the resized image's side that is used


def _timm_input(record: Mapping, arguments: Mapping) -> TimmInput:
    """The size of images that a network of timm takes.

    It is the argument `img_size`, for which the network is built. Without it, a record may have a
    size for testing and one of training: the one whose height is the paper's counts, testing first,
    and if neither has it that of training.

    Raises:
        UserError: The record has no input size, or one that is not three numbers.
    """
    image_size = arguments.get("img_size")
    if isinstance(image_size, int) and image_size:
        return TimmInput((3, image_size, image_size), record["crop_pct"])
    if image_size:
        height, width = image_size
        return TimmInput((3, height, width), record["crop_pct"])
    recorded_inputs = []
    for size_key, crop_key in [("test_input_size", "test_crop_pct"), ("input_size", "crop_pct")]:
        input_size = record.get(size_key)
        if input_size:
            _refuse_other_than_three_numbers(input_size, size_key)
            recorded_inputs.append(TimmInput(input_size, record[crop_key]))
    if not recorded_inputs:
        raise UserError("its record has no input_size; choose another model.")
    for recorded_input in recorded_inputs:
        _, height, _ = recorded_input.size
        if height == PROTOCOL_SIZE:
            return recorded_input
    return recorded_inputs[-1]


def _refuse_other_than_three_numbers(input_size: object, key: str) -> None:
    """Raise a UserError unless the input size under a key of a record is three whole numbers.

    Such as [3, 224, 224]: channels, height and width.
    """
    is_valid = (
        isinstance(input_size, list | tuple)
        and len(input_size) == 3
        and all(is_whole(number) for number in input_size)
    )
    if not is_valid:
        raise UserError(
            f"its record's {key} {show(input_size)} is not channels, height and width; choose "
            "another model."
        )


def _open_clip_registry_facts(name: Name) -> dict:
    """Facts of weights that the installed open_clip lists, by ARCHITECTURE/TAG.

    An example is `ViT-B-32/openai`.
    """
    import open_clip

    architecture, _, tag = name.rest.rpartition("/")
    record = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    if not record.get("hf_hub"):
        listed_names = [
            f"{listed_architecture}/{listed_tag}"
            for listed_architecture, listed_tag in open_clip.list_pretrained()
        ]
        raise _unknown_model_error(name, listed_names)
    config = open_clip.get_model_config(architecture)
    if record.get("quick_gelu") and not config.get("quick_gelu"):
        # These weights were trained with another activation than the architecture's.
        architecture += "-quickgelu"
        config = open_clip.get_model_config(architecture)
    # Such as timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors; the file is left
    # out if it has the library's name.
    repo, _, path = record["hf_hub"].rpartition("/")
    if not path:
        path = WEIGHTS["open_clip"][0]
    facts = _open_clip_facts(architecture, config, record, {})
    return {**facts, "source": _hub_source(name, repo, path)}


def _open_clip_facts(
    architecture: str, config: Mapping, record: Mapping, arguments: Mapping
) -> dict:
    """Facts from an open_clip model's configuration and the record of its preprocessing.

    Args:
        config: with the keys `vision_cfg` and `text_cfg`, as in an open_clip_config.json.
        record: `mean`, `std`, `interpolation` and `resize_mode`, each of which may be missing.
        arguments: keyword arguments with which the model is built.
    """
    _refuse_foreign_towers(config)
    check_arguments("open_clip", arguments, "its open_clip_config.json")
    return {
        "head": "zero_shot",
        "preprocessing": _open_clip_preprocessing(config, record),
        "licence": UNKNOWN,
        "resized_by": "force_image_size",
        "tokenizer_of": config["text_cfg"].get("hf_tokenizer_name"),
        **_network_facts("open_clip", architecture, arguments),
    }


def _refuse_foreign_towers(config: Mapping) -> None:
    """Raise a UserError if open_clip would fetch a tower of a model from elsewhere."""
    has_foreign_text_tower = "hf_model_name" in config["text_cfg"]
    has_foreign_image_tower = ":" in config["vision_cfg"].get("timm_model_name", "")
    if has_foreign_text_tower or has_foreign_image_tower:
        raise UserError(
            "it has a tower that open_clip would fetch from elsewhere; choose another model."
        )


def _open_clip_preprocessing(config: Mapping, record: Mapping) -> dict:
    """How images are prepared for an open_clip model; for the arguments see `_open_clip_facts`."""
    import open_clip

    image_size = config["vision_cfg"]["image_size"]
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    height, width = image_size
    side = height if height == width else None
    resize_mode = record.get("resize_mode") or "shortest"
    crop_mode = "center" if resize_mode == "shortest" else resize_mode
    record_with_defaults = {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
    }
    for key, setting in record.items():
        if setting:
            record_with_defaults[key] = setting
    return _preprocessing(record_with_defaults, side, 1.0, crop_mode)


def _preprocessing(record: Mapping, side: int | None, crop_pct: float, crop_mode: str) -> dict:
    """How images are prepared for a network.

    Args:
        record: with `mean` and `std` per channel, and `interpolation`.
        side: of a square RGB input, in pixels; None if the network takes another one.
        crop_pct: fraction of the resized image's side that is used.

    Raises:
        UserError: The network takes inputs that the workflow doesn't prepare.
    """
    if not side or crop_mode not in ("center", "squash"):
        raise UserError(
            "it takes other inputs than square RGB images without padding; choose another model."
        )
    return {
        "input_size": side,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "interpolation": record["interpolation"],
        "mean": list(record["mean"]),
        "std": list(record["std"]),
    }


def _network_facts(library: str, architecture: str, arguments: Mapping) -> dict:
    """How a network is built, its type (`vit` or `cnn`) and number of parameters.

    The network is built for this, without memory for its weights.
    """
    import torch

    from rib.models.network import build

    with torch.device("meta"):
        network = build(library, architecture, PUBLISHED_CLASSES, arguments=arguments)
    has_attention = any(map(_is_self_attention, network.modules()))
    return {
        "library": library,
        "architecture": architecture,
        "arguments": dict(arguments),
        "type": "vit" if has_attention else "cnn",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def _is_self_attention(layer: object) -> bool:
    """Whether a layer is self-attention; attention that only pools features is not."""
    class_name = type(layer).__name__
    if "Attention" not in class_name or "Pool" in class_name:
        return False
    return any(hasattr(layer, projection) for projection in ATTENTION_PROJECTIONS)


def _folder_facts(name: Name) -> dict:
    """Facts of a folder with weights and the configuration that timm or open_clip wrote."""
    folder = from_home(name.rest, name.text)
    if not folder.is_dir():
        raise UserError(
            "the folder does not exist; correct its path, which is relative to the project."
        )

    def find_file(file_name: str) -> Path | None:
        """The path of a file in the folder; None if there is none of this name."""
        file = folder / file_name
        return file if file.is_file() else None

    facts = _configured_facts(name, find_file)
    weights_file = _weights_file_in(folder, facts["library"])
    source = {**_pinned_file(weights_file), "file": name.short + weights_file.suffix}
    tokenizer = []
    if facts.get("tokenizer_of"):
        for file_name in TOKENIZER:
            file = find_file(file_name)
            if file:
                tokenizer.append({**_pinned_file(file), "file": file_name})
    return {**facts, "source": source, "tokenizer": tokenizer or None}


def _weights_file_in(folder: Path, library: str) -> Path:
    """The file of weights in a folder, the first of the names that the library looks for.

    Raises:
        UserError: There is none.
    """
    for file_name in WEIGHTS[library]:
        file = folder / file_name
        if file.is_file():
            return file
    raise UserError(f"the folder has none of {', '.join(WEIGHTS[library])}; add one.")


def _pinned_file(file: Path) -> dict:
    """Source of a local file, with its size in bytes and its digest."""
    return {
        "kind": "file",
        "path": str(file),
        "size": file.stat().st_size,
        "digest": f"sha256:{sha256(file)}",
    }


def _configured_facts(name: Name, find_file: Callable[[str], Path | None]) -> dict:
    """Facts from timm's config.json or open_clip's open_clip_config.json.

    Args:
        find_file: gives the path of a file of the model by its name; None if there is none.

    Raises:
        UserError: There is neither, or the configuration asks for what is not allowed.
    """
    import timm
    from timm.models._hub import load_model_config_from_path

    file = find_file("config.json")
    if file and timm.is_model(str(read_json(file).get("architecture"))):
        record, architecture, arguments = load_model_config_from_path(file.parent)
        check_arguments("timm", arguments, "its config.json")
        # What the file doesn't state is what timm records of the architecture.
        registered = timm.models.get_pretrained_cfg(architecture)
        registered_record = registered.to_dict() if registered else {}
        return _timm_facts(architecture, {**registered_record, **record}, arguments)
    file = find_file("open_clip_config.json")
    if file is None:
        raise UserError(
            f"there is no config.json of an architecture of timm {timm.__version__} and no "
            "open_clip_config.json; choose another model."
        )
    file_content = read_json(file)
    config = file_content["model_cfg"]
    config["vision_cfg"]["timm_model_pretrained"] = False
    record = file_content.get("preprocess_cfg", {})
    return _open_clip_facts(name.short, config, record, {"model_cfg": config})


def _facts_with_hub(name: Name, facts: dict) -> dict:
    """Facts with the hub's commit, and with the size and digest of the files there.

    Args:
        facts: those of `_recorded_facts`; empty for a model that only the hub knows (`hf-hub:`),
            and unchanged for one in a local folder.
    """
    if name.kind == "local-dir":
        return facts
    with _errors_name_model(name):
        if name.kind == "hf-hub":
            repo, _, revision = name.rest.partition("@")
            repository = _repository(repo, revision or None)
            facts = _hub_configured_facts(name, repository)
            preferred_path = None
        else:
            repository = _repository(facts["source"]["repo"], None)
            preferred_path = facts["source"]["path"]
        return _pinned_facts(name, facts, repository, preferred_path)


def _pinned_facts(
    name: Name, facts: Mapping, repository: HubRepository, preferred_path: str | None
) -> dict:
    """Facts of a model with what its repository states: commit, files, licence and terms.

    Args:
        preferred_path: see `_path_of_weights`.
    """
    path = _path_of_weights(repository, facts["library"], preferred_path)
    licence = facts["licence"]
    if licence == UNKNOWN:
        licence = repository.licence
    return {
        **facts,
        "source": _pinned_hub_source(name, repository, path),
        "licence": licence,
        "gated": repository.gated,
        "tokenizer": _hub_tokenizer(name, facts.get("tokenizer_of")),
    }


def _hub_configured_facts(name: Name, repository: HubRepository) -> dict:
    """Facts from the configuration in a repository of the hub."""
    from huggingface_hub import hf_hub_download

    def find_file(file_name: str) -> Path | None:
        """Download a file of the repository, and give its path; None if it has none."""
        if file_name not in repository.files:
            return None
        return Path(hf_hub_download(repository.name, file_name, revision=repository.commit))

    return _configured_facts(name, find_file)


def _path_of_weights(repository: HubRepository, library: str, preferred_path: str | None) -> str:
    """Path of the weights in a repository: the first that exists.

    The preferred one is looked for first, if any, then the names that the library looks for.
    """
    paths = list(WEIGHTS[library])
    if preferred_path:
        paths = [preferred_path, *(path for path in paths if path != preferred_path)]
    for path in paths:
        if path in repository.files:
            return path
    raise UserError(
        f"{repository.name} on the hub has none of {', '.join(paths)}; choose another model."
    )


def _hub_tokenizer(name: Name, tokenizer_of: str | None) -> list[dict] | None:
    """Sources of the files of a tokenizer; None for a model with open_clip's own.

    Args:
        tokenizer_of: the repository of the hub with the tokenizer.
    """
    if not tokenizer_of:
        return None
    repository = _repository(tokenizer_of, None)
    return [
        {**_pinned_hub_source(name, repository, path), "file": path}
        for path in TOKENIZER
        if path in repository.files
    ]


def _hub_source(name: Name, repo: str, path: str) -> dict:
    """Source of a file on the hub, such as `model.safetensors`, called by the model's name here."""
    return {"kind": "hub", "repo": repo, "path": path, "file": name.short + Path(path).suffix}


def _pinned_hub_source(name: Name, repository: HubRepository, path: str) -> dict:
    """Source of a file on the hub with commit, size and digest, as far as the hub states them."""
    source = _hub_source(name, repository.name, path)
    pins = {"revision": repository.commit, **repository.files[path]}
    for key, pin in pins.items():
        if pin:
            source[key] = pin
    return source


@cache
def _repository(repo: str, revision: str | None) -> HubRepository:
    """A repository at a revision, or at its newest commit, as the hub describes it."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    files = {}
    for file in info.siblings or []:
        digest = f"sha256:{file.lfs.sha256}" if file.lfs else None
        files[file.rfilename] = {"size": file.size, "digest": digest}
    licence = None
    if info.card_data:
        licence = info.card_data.get("license_name") or info.card_data.get("license")
    assert info.sha is not None  # the hub states the commit of each model
    return HubRepository(
        name=repo,
        commit=info.sha,
        files=files,
        licence=str(licence or UNKNOWN),
        gated=bool(info.gated),
    )


def _unknown_model_error(name: Name, listed_names: Sequence[str]) -> UserError:
    """The error that a library has no such model, with those of similar names."""
    similar_names = difflib.get_close_matches(name.rest, listed_names, n=3, cutoff=0.3)
    suggestions = ", ".join(f"{name.kind}/{similar}" for similar in similar_names)
    version = importlib.metadata.version(PACKAGES[name.kind])
    return UserError(f"{name.kind} {version} has no such model; the nearest are {suggestions}.")


def main() -> None:
    """Write the facts of the models that the command line names; see the module."""
    parser = argparse.ArgumentParser(description="Write the facts of models as JSON.")
    parser.add_argument("--library", action="store_true", help="don't ask the hub")
    parser.add_argument("file", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    try:
        facts = describe(arguments.names, ask_hub=not arguments.library)
        write_json(arguments.file, facts)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
