"""Facts for catalogue entries of models, from timm, open_clip, a hub repository or a local folder.

The libraries know architectures, preprocessing and repositories; the hub knows commits, sizes,
digests and licences.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rib.base.errors import UserError
from rib.base.files import from_home, read_json, sha256
from rib.base.hub import fetch_from_hub, hub_problem
from rib.catalog.model_names import Name, parse_name
from rib.schema.messages import nearest
from rib.schema.model_arguments import check_arguments

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo
    from torch import nn

PACKAGES = {"timm": "timm", "open_clip": "open_clip_torch"}
PUBLISHED_CLASSES = 1000  # ImageNet-1K's
PROTOCOL_SIZE = 224  # pixels (arXiv 2410.21582)
TIMM_CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
# In the order in which the libraries look for the files.
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
# A self-attention layer of timm or open_clip has one of these projections.
ATTENTION_PROJECTIONS = ("qkv", "q_proj", "out_proj")


def describe(names: Sequence[str], ask_hub: bool = True) -> dict[str, dict]:
    """Facts of models by name, for the lock file, with the fields of rib.schema.entries.Model.

    An example is {"timm/resnet18.a1_in1k": {"architecture": "resnet18", "head": "published", ...}}.

    Args:
        ask_hub: whether to ask the hub for commit, size, digest and licence. Names that begin with
            `hf-hub:` always need the hub.

    Raises:
        UserError: a model doesn't exist, its weights can't be used, or the hub doesn't answer.
    """
    facts_by_name = {}
    for text in names:
        name = parse_name(text)
        with _errors_name_model(name):
            facts = _facts(name, ask_hub)
        facts_by_name[text] = {key: fact for key, fact in facts.items() if fact is not None}
    return facts_by_name


@contextlib.contextmanager
def _errors_name_model(name: Name) -> Iterator[None]:
    """Turn any error into a UserError that begins with the model's name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config, models: '{name.text}': {error}") from error
    except Exception as error:  # from the libraries, the hub's client or the files they read
        raise UserError(f"config, models: '{name.text}': {hub_problem(error)}.") from error


def _facts(name: Name, ask_hub: bool) -> dict:
    """Facts of one model, as `describe` gives them; unknown facts are None."""
    if name.kind == "local-dir":
        return _folder_facts(name)
    if name.kind == "hf-hub":
        return _repository_facts(name)
    facts = _timm_model_facts(name) if name.kind == "timm" else _open_clip_model_facts(name)
    if ask_hub:
        source = facts["source"]
        info = _model_info(source["repo"])
        facts |= _hub_facts(name, facts, info, [source["path"], *WEIGHTS[name.kind]])
    return facts


# Models that the libraries list


def _timm_model_facts(name: Name) -> dict:
    """Facts of `resnet18.a1_in1k`, or of `resnet18` with timm's default weights."""
    import timm

    if not timm.models.is_model_pretrained(name.rest):
        raise _unknown_model_error(name, timm.list_pretrained())
    facts, record = _timm_facts(name.rest, {})
    if not record.get("hf_hub_id"):
        raise UserError(
            "timm knows no repository of the hub with its weights; choose another model."
        )
    path = record.get("hf_hub_filename") or WEIGHTS["timm"][0]
    return {**facts, "source": _hub_source(name, record["hf_hub_id"], path)}


def _open_clip_model_facts(name: Name) -> dict:
    """Facts of a model such as `ViT-B-32/openai`, which is ARCHITECTURE/TAG."""
    import open_clip

    architecture, _, tag = name.rest.rpartition("/")
    record = open_clip.get_pretrained_cfg(architecture, tag)
    if not record.get("hf_hub"):
        listed_names = ["/".join(listed) for listed in open_clip.list_pretrained()]
        raise _unknown_model_error(name, listed_names)
    if record.get("quick_gelu") and not open_clip.get_model_config(architecture).get("quick_gelu"):
        # These weights were trained with another activation than the architecture's.
        architecture += "-quickgelu"
    config = open_clip.get_model_config(architecture)
    if "hf_model_name" in config["text_cfg"]:
        raise UserError(
            "it has a tower that open_clip would fetch from elsewhere; choose another model."
        )
    facts = _open_clip_facts(architecture, architecture, config, record)
    # "timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors", or without a file if it
    # has the library's usual name.
    repo, _, path = record["hf_hub"].rpartition("/")
    return {**facts, "source": _hub_source(name, repo, path or WEIGHTS["open_clip"][0])}


def _unknown_model_error(name: Name, listed_names: Iterable[str]) -> UserError:
    version = importlib.metadata.version(PACKAGES[name.kind])
    suggestion = nearest(name.rest, listed_names)
    return UserError(f"{name.kind} {version} has no such model{suggestion}; correct the name.")


def _timm_facts(model: str, arguments: Mapping) -> tuple[dict, dict]:
    """Facts, and timm's record; `model` is `resnet18.a1_in1k` or `local-dir:networks/mine`."""
    import timm
    import torch

    from rib.models.network import Classifier

    with torch.device("meta"):  # takes no memory for the weights
        network = cast(Classifier, timm.create_model(model, num_classes=PUBLISHED_CLASSES))
    record = network.pretrained_cfg
    # A network with a fixed input size must be built anew for another size.
    is_built_for_size = bool(arguments.get("img_size") or record.get("fixed_input_size"))
    facts = {
        "library": "timm",
        "architecture": record["architecture"],
        "arguments": dict(arguments),
        "resized_by": "img_size" if is_built_for_size else None,
        "head": "published" if _has_imagenet_head(record) else "none",
        "preprocessing": _timm_preprocessing(record, arguments),
        "licence": record.get("license") or UNKNOWN,
        **_facts_of_network(network),
    }
    return facts, record


def _has_imagenet_head(record: Mapping) -> bool:
    """Whether the published head gives logits of ImageNet-1K's classes, so it can be kept."""
    from timm.data import ImageNetInfo

    # Without names of labels timm means ImageNet's.
    label_names = record.get("label_names")
    has_imagenet_labels = label_names is None or label_names == ImageNetInfo().label_names()
    return record.get("num_classes") == PUBLISHED_CLASSES and has_imagenet_labels


def _timm_preprocessing(record: Mapping, arguments: Mapping) -> dict:
    """Such as {"input_size": 224, "crop_pct": 0.95, ...}, from timm's record of the weights."""
    # Size: the argument `img_size`, else the record's test size if it is 224, else training's.
    from timm.data import resolve_data_config

    built_for = arguments.get("img_size")
    if built_for:
        sides = [built_for, built_for] if isinstance(built_for, int) else built_for
        config = resolve_data_config({"input_size": (3, *sides)}, record)
    else:
        config = resolve_data_config(pretrained_cfg=record, use_test_size=True)
        if list(config["input_size"]) != [3, PROTOCOL_SIZE, PROTOCOL_SIZE]:
            config = resolve_data_config(pretrained_cfg=record)
    return _preprocessing(config, config["input_size"], config["crop_pct"], config["crop_mode"])


def _open_clip_facts(
    model: str, architecture: str, config: Mapping, record: Mapping | None = None
) -> dict:
    """Facts of a model; `config` has `vision_cfg` and `text_cfg`, `record` its preprocessing."""
    import open_clip
    import torch

    from rib.models.network import OpenClipClassifier

    with torch.device("meta"):  # takes no memory for the weights
        both_towers = open_clip.create_model(
            model, load_weights=False, device="meta", force_preprocess_cfg=record
        )
    preprocessing = open_clip.get_model_preprocess_cfg(both_towers)
    side = preprocessing["size"]
    sides = [side, side] if isinstance(side, int) else side
    resize_mode = preprocessing["resize_mode"]
    crop_mode = "center" if resize_mode == "shortest" else resize_mode
    network = OpenClipClassifier(both_towers.visual, config["embed_dim"], PUBLISHED_CLASSES)
    return {
        "library": "open_clip",
        "architecture": architecture,
        "arguments": {},
        "resized_by": "force_image_size",
        "head": "zero_shot",
        "preprocessing": _preprocessing(preprocessing, (3, *sides), 1.0, crop_mode),
        "licence": UNKNOWN,
        **_facts_of_network(network),
    }


def _preprocessing(
    config: Mapping, input_size: Sequence[int], crop_pct: float, crop_mode: str
) -> dict:
    """From (3, 224, 224): {"input_size": 224, "crop_pct": 0.95, "crop_mode": "center", ...}."""
    # `crop_pct` is the used fraction of a resized image's side.
    side = input_size[-1] if len(input_size) == 3 else None
    if list(input_size) != [3, side, side] or crop_mode not in ("center", "squash"):
        raise UserError(
            "it takes other inputs than square RGB images without padding; choose another model."
        )
    return {
        "input_size": side,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "interpolation": config["interpolation"],
        "mean": list(config["mean"]),
        "std": list(config["std"]),
    }


def _facts_of_network(network: nn.Module) -> dict:
    """For example {"type": "cnn", "parameters": 11689512}."""
    has_attention = any(map(_is_self_attention, network.modules()))
    return {
        "type": "vit" if has_attention else "cnn",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def _is_self_attention(layer: nn.Module) -> bool:
    """Whether a layer makes a network a ViT; attention that only pools features doesn't."""
    class_name = type(layer).__name__
    if "Attention" not in class_name or "Pool" in class_name:
        return False
    return any(hasattr(layer, projection) for projection in ATTENTION_PROJECTIONS)


# Models in folders and repositories, with their own configuration


def _configured_facts(name: Name, configurations: Mapping[str, Path]) -> dict:
    """Facts from a model's own files: {"config.json": Path("networks/mine/config.json")}."""
    import timm

    if TIMM_CONFIG in configurations:
        path = configurations[TIMM_CONFIG]
        config = read_json(path)
        if timm.is_model(str(config.get("architecture"))):
            arguments = config.get("model_args") or {}
            check_arguments("timm", arguments, f"its {TIMM_CONFIG}")
            facts, _ = _timm_facts(f"local-dir:{path.parent}", arguments)
            return facts
    if OPEN_CLIP_CONFIG not in configurations:
        raise UserError(
            f"there is no {TIMM_CONFIG} of an architecture of timm {timm.__version__} and no "
            f"{OPEN_CLIP_CONFIG}; choose another model."
        )
    path = configurations[OPEN_CLIP_CONFIG]
    config = read_json(path)["model_cfg"]
    config["vision_cfg"]["timm_model_pretrained"] = False
    check_arguments("open_clip", {"model_cfg": config}, f"its {OPEN_CLIP_CONFIG}")
    facts = _open_clip_facts(f"local-dir:{path.parent}", name.short, config)
    return {**facts, "arguments": {"model_cfg": config}}


def _folder_facts(name: Name) -> dict:
    """Facts of a model in a local folder, with size and digest of its files."""
    folder = from_home(name.rest, name.text)
    if not folder.is_dir():
        raise UserError(
            "the folder does not exist; correct its path, which is relative to the project."
        )
    paths = {path.name: path for path in folder.iterdir() if path.is_file()}
    facts = _configured_facts(name, paths)
    weights = paths[_first_of(WEIGHTS[facts["library"]], paths, "the folder")]
    tokenizer = None
    if _tokenizer_repository(facts):
        tokenizer = [_pinned_file(paths[file], file) for file in TOKENIZER if file in paths]
    source = _pinned_file(weights, name.short + weights.suffix)
    return {**facts, "source": source, "tokenizer": tokenizer or None}


def _pinned_file(path: Path, file: str) -> dict:
    """A source as in a catalogue entry; `file` is the name of the workflow's copy."""
    return {
        "kind": "file",
        "path": str(path),
        "size": path.stat().st_size,
        "digest": f"sha256:{sha256(path)}",
        "file": file,
    }


def _repository_facts(name: Name) -> dict:
    """Facts of `OWNER/NAME@REVISION` on the hub, or of `OWNER/NAME` at its newest commit."""
    repo, _, revision = name.rest.partition("@")
    info = _model_info(repo, revision or None)
    configurations = {}
    for path in (TIMM_CONFIG, OPEN_CLIP_CONFIG):
        if path in _files(info):
            source = {"repo": repo, "path": path, "revision": info.sha}
            configurations[path] = fetch_from_hub(source)
    facts = _configured_facts(name, configurations)
    return facts | _hub_facts(name, facts, info, WEIGHTS[facts["library"]])


def _first_of(paths: Iterable[str], files: Iterable[str], place: str) -> str:
    """The first of `paths` that exists in `files`; `place` is for the message."""
    for path in paths:
        if path in files:
            return path
    raise UserError(f"{place} has no weights ({', '.join(paths)}); choose another model.")


def _tokenizer_repository(facts: Mapping) -> str | None:
    """The hub's repository of a model's tokenizer, such as `timm/ViT-B-16-SigLIP`.

    None for timm, and for open_clip's own tokenizer.
    """
    if facts["library"] != "open_clip":
        return None
    import open_clip

    config = facts["arguments"].get("model_cfg")
    if not config:
        config = open_clip.get_model_config(facts["architecture"])
    repository: str | None = config["text_cfg"].get("hf_tokenizer_name")
    return repository


# What the hub knows


def _model_info(repo: str, revision: str | None = None) -> ModelInfo:
    from huggingface_hub import HfApi

    return HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)


def _files(info: ModelInfo) -> dict[str, Any]:
    """The hub's facts of each file, such as {"model.safetensors": RepoSibling(...)}."""
    return {file.rfilename: file for file in info.siblings or []}


def _hub_facts(
    name: Name, facts: Mapping, info: ModelInfo, paths_of_weights: Sequence[str]
) -> dict:
    """`source` and `tokenizer` with commit, size and digest of files; `licence` and `gated`."""
    place = f"{info.id} on the hub"
    path = _first_of(dict.fromkeys(paths_of_weights), _files(info), place)
    licence = facts["licence"]
    if licence == UNKNOWN and info.card_data:
        licence = info.card_data.get("license_name") or info.card_data.get("license") or UNKNOWN
    tokenizer = None
    tokenizer_repository = _tokenizer_repository(facts)
    if tokenizer_repository:
        tokenizer_info = _model_info(tokenizer_repository)
        tokenizer = [
            {**_pinned_hub_source(name, tokenizer_info, file), "file": file}
            for file in TOKENIZER
            if file in _files(tokenizer_info)
        ]
    return {
        "source": _pinned_hub_source(name, info, path),
        "licence": str(licence),
        "gated": bool(info.gated),
        "tokenizer": tokenizer,
    }


def _hub_source(name: Name, repo: str, path: str) -> dict:
    """Source; its `file`, the workflow's copy, has the model's name and the hub file's suffix."""
    return {"kind": "hub", "repo": repo, "path": path, "file": name.short + Path(path).suffix}


def _pinned_hub_source(name: Name, info: ModelInfo, path: str) -> dict:
    """Source with commit, size and digest, as far as the hub states them."""
    file = _files(info)[path]
    source = {**_hub_source(name, info.id, path), "revision": info.sha}
    if file.size:
        source["size"] = file.size
    if file.lfs:
        source["digest"] = f"sha256:{file.lfs.sha256}"
    return source
