"""A small open_clip model at random weights, `clip`, with a tokenizer, for the family `tiny`."""

from pathlib import Path

import safetensors.torch
import torch
import yaml

from rib.base.files import sha256
from rib.models.network import create
from tiny.models.texts import words

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 64,
        "width": 16,
        "heads": 1,
        "layers": 1,
        "hf_tokenizer_name": "owner/words",
        "pool_type": "last",
    },
}


def add(folder: Path) -> None:
    """Add the model to a catalogue folder that `tiny.projects.family.make` wrote."""
    archives = folder / "archives"
    torch.manual_seed(0)
    state = create("open_clip", "tiny", {"model_cfg": CONFIG}).state_dict()
    weights = archives / "clip.safetensors"
    safetensors.torch.save_file(state, weights)
    tokenizer = []
    for name, content in words().items():
        path = archives / name
        path.write_bytes(content)
        tokenizer.append(path)

    models = folder / "models.yaml"
    entries = yaml.safe_load(models.read_text())
    entries["clip"] = _entry(entries["tiny_vit"], weights, tokenizer)
    models.write_text(yaml.safe_dump(entries))


def _entry(other: dict, weights: Path, tokenizer: list[Path]) -> dict:
    """The model's entry: keys that open_clip doesn't change are those of another model."""
    return {
        **other,
        "library": "open_clip",
        "architecture": "tiny",
        "arguments": {"model_cfg": CONFIG},
        "head": "zero_shot",
        "label": "CLIP",
        "style": {"colour": "#123456", "marker": "x"},
        "source": _archived_file(weights),
        "tokenizer": [_archived_file(path) for path in tokenizer],
        "weights": {},
        "preprocessing": {**other["preprocessing"], "input_size": 32},
    }


def _archived_file(path: Path) -> dict:
    """A source of the catalogue: a file of this machine."""
    return {
        "kind": "file",
        "path": str(path),
        "file": path.name,
        "digest": f"sha256:{sha256(path)}",
    }
