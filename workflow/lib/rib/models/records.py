"""What timm, open_clip, a hub repository or a local folder record of models, as facts for catalogue entries.

A process of its own, since importing the libraries takes seconds: python -m rib.models.records [--library] FILE NAME...
writes the facts by name to FILE; with --library only what the libraries record, without asking the hub.
"""

import difflib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import from_home, read_json, sha256, write_json
from rib.config.model_arguments import check_arguments
from rib.config.model_names import RECORDS, Name, parse_name
from rib.data.download import hub_problem

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


def describe(names: Sequence[str], ask_hub: bool = True) -> dict[str, dict]:
    """Facts by name, as the schema of models.yaml describes them; those of the libraries are cached by version.

    Raises a UserError if a name doesn't exist, its weights can't be used, or the hub can't be asked.
    """
    parsed = [parse_name(name) for name in names]
    facts = [_checked(_recorded, name) for name in parsed]
    if ask_hub:
        with ThreadPoolExecutor(8) as pool:
            facts = list(pool.map(partial(_checked, _located), parsed, facts))
    own = [
        {key: value for key, value in part.items() if value is not None and key != "tokenizer_of"}
        for part in facts
    ]
    return dict(zip(names, own, strict=True))


def _checked(find: Callable, name: Name, *more) -> dict:
    """Facts that a function finds; all of its errors become sentences that name the model."""
    try:
        return find(name, *more)
    except UserError as error:
        raise UserError(f"config, models: '{name.text}': {error}") from error
    except Exception as error:  # of the libraries, the hub's client and what they are given
        raise UserError(f"config, models: '{name.text}': {hub_problem(error)}.") from error


def _recorded(name: Name) -> dict:
    """Facts of the library, from the cache if this version was asked before, or of a folder; none of the hub."""
    if name.kind not in PACKAGES:
        return _of_folder(name) if name.kind == "local-dir" else {}
    file = RECORDS / f"{name.kind}-{importlib.metadata.version(PACKAGES[name.kind])}.json"
    known = read_json(file) if file.is_file() else {}
    if name.text not in known:
        known[name.text] = _of_timm(name) if name.kind == "timm" else _of_open_clip(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
    return known[name.text]


def _of_timm(name: Name) -> dict:
    from timm.models import get_pretrained_cfg, list_pretrained

    known = list_pretrained()
    if name.rest not in known and not any(one.startswith(f"{name.rest}.") for one in known):
        raise _unknown(name, known)
    record = get_pretrained_cfg(name.rest).to_dict()
    if not record.get("hf_hub_id"):
        raise UserError(
            "timm knows no repository of the hub with its weights; choose another model."
        )
    path = record.get("hf_hub_filename") or WEIGHTS["timm"][0]
    return {
        **_timm_facts(record["architecture"], record, {}),
        "source": _on_hub(name, record["hf_hub_id"], path),
    }


def _timm_facts(architecture: str, record: Mapping, arguments: Mapping) -> dict:
    """Facts from a record of timm, in its registry or in a config.json."""
    from timm.data import ImageNetInfo

    sizes = [("input_size", "crop_pct"), ("test_input_size", "test_crop_pct")]
    pairs = [(record[size], record[crop]) for size, crop in sizes if record.get(size)]
    if built_for := arguments.get("img_size"):
        pairs = [
            (
                (3, *([built_for] * 2 if isinstance(built_for, int) else built_for)),
                record["crop_pct"],
            )
        ]
    # The paper's size if the record has it, otherwise the size of training.
    (channels, side, other), crop_pct = next(
        (pair for pair in pairs[::-1] if pair[0][1] == PROTOCOL_SIZE), pairs[0]
    )
    mode, classes = record.get("crop_mode") or "center", record.get("label_names")
    published = record.get("num_classes") == PUBLISHED_CLASSES and classes in (
        None,
        ImageNetInfo().label_names(),
    )
    return {
        "head": "published" if published else "none",
        "preprocessing": _preprocessing(
            record, channels == 3 and side == other and side, crop_pct, mode
        ),
        "licence": record.get("license") or UNKNOWN,
        "resized_by": "img_size" if built_for or record.get("fixed_input_size") else None,
        **_built("timm", architecture, arguments),
    }


def _of_open_clip(name: Name) -> dict:
    import open_clip

    architecture, _, tag = name.rest.rpartition("/")
    record = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    if not record.get("hf_hub"):
        raise _unknown(name, [f"{one}/{other}" for one, other in open_clip.list_pretrained()])
    if record.get("quick_gelu") and not open_clip.get_model_config(architecture).get("quick_gelu"):
        architecture += "-quickgelu"  # the activation that these weights were trained with
    repo, _, path = record["hf_hub"].rpartition("/")
    facts = _open_clip_facts(architecture, open_clip.get_model_config(architecture), record, {})
    return {**facts, "source": _on_hub(name, repo, path or WEIGHTS["open_clip"][0])}


def _open_clip_facts(
    architecture: str, config: Mapping, record: Mapping, arguments: Mapping
) -> dict:
    """Facts from an open_clip model's configuration and the record of its preprocessing."""
    import open_clip

    if "hf_model_name" in config["text_cfg"] or ":" in config["vision_cfg"].get(
        "timm_model_name", ""
    ):
        raise UserError(
            "it has a tower that open_clip would fetch from elsewhere; choose another model."
        )
    check_arguments("open_clip", arguments, "its open_clip_config.json")
    size = config["vision_cfg"]["image_size"]
    side, other = (size, size) if isinstance(size, int) else size
    mode = {"shortest": "center"}.get(
        record.get("resize_mode") or "shortest", record.get("resize_mode")
    )
    defaults = {
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
    }
    record = defaults | {key: value for key, value in record.items() if value}
    return {
        "head": "zero_shot",
        "preprocessing": _preprocessing(record, side == other and side, 1.0, mode),
        "licence": UNKNOWN,
        "resized_by": "force_image_size",
        "tokenizer_of": config["text_cfg"].get("hf_tokenizer_name"),
        **_built("open_clip", architecture, arguments),
    }


def _preprocessing(record: Mapping, side: int | bool, crop_pct: float, mode: str) -> dict:
    if not side or mode not in ("center", "squash"):
        raise UserError(
            "it takes other inputs than square RGB images without padding; choose another model."
        )
    found = {
        "input_size": side,
        "crop_pct": crop_pct,
        "crop_mode": mode,
        "interpolation": record["interpolation"],
    }
    return found | {"mean": list(record["mean"]), "std": list(record["std"])}


def _built(library: str, architecture: str, arguments: Mapping) -> dict:
    """How a network is built, its type and number of parameters, from one without memory for its weights."""
    from rib.models.foreign_network import foreign_network_facts, network_facts

    if arguments:
        facts = foreign_network_facts(library, architecture, arguments)
    else:  # the network is the library's own
        facts = network_facts(library, architecture, arguments)
    return {"library": library, "architecture": architecture, "arguments": dict(arguments), **facts}


def _of_folder(name: Name) -> dict:
    """Facts of a folder with weights and the configuration that timm or open_clip wrote."""
    folder = from_home(name.rest, name.text)
    if not folder.is_dir():
        raise UserError(
            "the folder does not exist; correct its path, which is relative to the project."
        )
    facts = _configured(name, lambda file: folder / file if (folder / file).is_file() else None)
    path = next(
        (folder / file for file in WEIGHTS[facts["library"]] if (folder / file).is_file()), None
    )
    if path is None:
        raise UserError(f"the folder has none of {', '.join(WEIGHTS[facts['library']])}; add one.")
    files = [
        folder / file
        for file in TOKENIZER
        if facts.get("tokenizer_of") and (folder / file).is_file()
    ]
    pinned = [
        {
            "kind": "file",
            "path": str(file),
            "size": file.stat().st_size,
            "digest": f"sha256:{sha256(file)}",
        }
        for file in (path, *files)
    ]
    tokenizer = [{**part, "file": file.name} for part, file in zip(pinned[1:], files, strict=True)]
    return {
        **facts,
        "source": {**pinned[0], "file": name.short + path.suffix},
        "tokenizer": tokenizer or None,
    }


def _configured(name: Name, find: Callable[[str], Path | None]) -> dict:
    """Facts from timm's config.json or open_clip's open_clip_config.json, whichever `find` finds."""
    import timm
    from timm.models._hub import load_model_config_from_path

    file = find("config.json")
    if file and timm.is_model(str(read_json(file).get("architecture"))):
        record, architecture, arguments = load_model_config_from_path(file.parent)
        check_arguments("timm", arguments, "its config.json")
        known = timm.models.get_pretrained_cfg(architecture)
        return _timm_facts(
            architecture, {**(known.to_dict() if known else {}), **record}, arguments
        )
    file = find("open_clip_config.json")
    if file is None:
        raise UserError(
            f"there is no config.json of an architecture of timm {timm.__version__} and no open_clip_config.json; "
            "choose another model."
        )
    given = read_json(file)
    config = given["model_cfg"]
    config["vision_cfg"]["timm_model_pretrained"] = False
    return _open_clip_facts(
        name.short, config, given.get("preprocess_cfg", {}), {"model_cfg": config}
    )


def _located(name: Name, facts: dict) -> dict:
    """Facts with the commit of the hub, and the size and digest of the files there."""
    if name.kind == "local-dir":
        return facts
    repo, _, revision = (
        name.rest.partition("@") if name.kind == "hf-hub" else (facts["source"]["repo"], "", "")
    )
    found = _repository(repo, revision or None)
    if not facts:
        from huggingface_hub import hf_hub_download

        fetch = partial(hf_hub_download, repo, revision=found["commit"])
        facts = _configured(
            name, lambda file: Path(fetch(file)) if file in found["files"] else None
        )
    wanted = dict.fromkeys(
        [*([facts["source"]["path"]] if "source" in facts else []), *WEIGHTS[facts["library"]]]
    )
    path = next((path for path in wanted if path in found["files"]), None)
    if path is None:
        raise UserError(f"{repo} on the hub has none of {', '.join(wanted)}; choose another model.")
    licence = facts["licence"] if facts["licence"] != UNKNOWN else found["licence"]
    tokenizer = None
    if facts.get("tokenizer_of"):
        others = _repository(facts["tokenizer_of"], None)
        names = [file for file in TOKENIZER if file in others["files"]]
        tokenizer = [
            _on_hub(name, facts["tokenizer_of"], file, others) | {"file": file} for file in names
        ]
    source = _on_hub(name, repo, path, found)
    return {
        **facts,
        "source": source,
        "licence": licence,
        "gated": found["gated"],
        "tokenizer": tokenizer,
    }


def _on_hub(name: Name, repo: str, path: str, found: Mapping | None = None) -> dict:
    """Source of a file on the hub, pinned by what was found there."""
    source = {"kind": "hub", "repo": repo, "path": path, "file": name.short + Path(path).suffix}
    pinned = {"revision": found["commit"], **found["files"][path]} if found else {}
    return source | {key: value for key, value in pinned.items() if value}


@cache
def _repository(repo: str, revision: str | None) -> dict:
    """Commit, licence, gate, and size and digest of each file of a repository."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    files = {
        file.rfilename: {
            "size": file.size,
            "digest": f"sha256:{file.lfs.sha256}" if file.lfs else None,
        }
        for file in info.siblings or []
    }
    card = info.card_data
    licence = (card.get("license_name") or card.get("license")) if card else None
    return {
        "commit": info.sha,
        "files": files,
        "licence": str(licence or UNKNOWN),
        "gated": bool(info.gated),
    }


def _unknown(name: Name, known: Sequence[str]) -> UserError:
    close = [
        f"{name.kind}/{one}" for one in difflib.get_close_matches(name.rest, known, n=3, cutoff=0.3)
    ]
    version = importlib.metadata.version(PACKAGES[name.kind])
    return UserError(
        f"{name.kind} {version} has no such model; the nearest are {', '.join(close)}."
    )


if __name__ == "__main__":
    words = sys.argv[1:]
    library_only = words[0] == "--library"
    output, *requested = words[library_only:]
    try:
        write_json(Path(output), describe(requested, ask_hub=not library_only))
    except UserError as problem:
        sys.exit(str(problem))
