"""A catalogue folder with the family `tiny`: synthetic images and two random-weight networks.

Each class is a colour; a dataset shifts and dims it, so that fine-tuning has something to learn.
`copy` shares the source images of `red`, as ImageNet-Cartoon shares those of the validation set.
`memory` stands for what pretraining saw.
"""

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

WNIDS = ["n01440764", "n02206856", "n02219486", "n04254680", "n07753592"]
IMAGES_PER_CLASS = 4
DATASETS = {"red": 0, "green": 1, "blue": 2, "copy": 0, "memory": 1}
REFERENCE = "memory"
NETWORKS = {"tiny_cnn": "test_efficientnet", "tiny_vit": "test_vit"}
SIZE = 160  # what timm's test networks expect


def make(folder: Path, images_per_class: int = IMAGES_PER_CLASS) -> None:
    """Write the family's catalogue folder, archives and weights included."""
    for name in ("families", "classes", "archives"):
        (folder / name).mkdir(parents=True)
    (folder / "classes/tiny.csv").write_text("\n".join(["wnid", *WNIDS]) + "\n")
    family = {
        "title": "Tiny",
        "description": "synthetic images for tests",
        "classes": {"file": "tiny.csv", "format": "wnids"},
        "reference": REFERENCE,
        "fit_threshold": "none",  # two epochs fit nothing
        "defaults": {
            "models": ["tiny_cnn"],
            "methods": ["ft", "linear_probe", "lwf", "wise_ft"],
            "targets": ["red", "green"],
            "image_size": SIZE,
            "epochs": 2,
            "batch_size": 8,
        },
    }
    (folder / "families/tiny.yaml").write_text(yaml.safe_dump(family))
    (folder / "datasets.yaml").write_text(
        yaml.safe_dump({name: _dataset(folder, name, images_per_class) for name in DATASETS})
    )
    (folder / "models.yaml").write_text(
        yaml.safe_dump({name: _model(folder, name) for name in NETWORKS})
    )


def _source(path: Path) -> dict:
    """The entry of a file that lies in the catalogue folder, with its digest."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "kind": "file",
        "path": f"archives/{path.name}",
        "file": path.name,
        "digest": f"sha256:{digest}",
    }


def _dataset(folder: Path, name: str, images_per_class: int) -> dict:
    """Write a dataset's archive; gives its entry in the catalogue."""
    path = folder / f"archives/{name}.zip"
    path.write_bytes(_archive(name, images_per_class))
    entry = {
        "family": "tiny",
        "label": name.title(),
        "source": _source(path),
        "layout": "class_folders",
        "evaluation_group": "tiny",
        "licence": "none",
        "origin": "tests",
        "publishable": True,
    }
    if name == REFERENCE:
        entry["role"] = "reference"
    if name in ("red", "copy"):
        entry["source_group"] = "originals"
    return entry


@cache
def _archive(name: str, images_per_class: int) -> bytes:
    """The zip archive of a dataset, a folder for each class.

    A class is told by the brightness of one colour, which is another in each dataset.
    """
    rng = np.random.default_rng(DATASETS[name])
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for label, wnid in enumerate(WNIDS):
            for number in range(images_per_class):
                pixels = rng.normal(128, 30, (40, 48, 3))
                pixels[..., DATASETS[name]] += 20 * (label - 2)
                buffer = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
                archive.writestr(f"{name}/{wnid}/{wnid}_{number}.png", buffer.getvalue())
    return zipped.getvalue()


@cache
def _weights(name: str) -> bytes:
    """The safetensors file of a network's random weights, which are always the same."""
    # Here, since tests/conftest.py imports this module before any test process starts.
    import safetensors.torch
    import timm
    import torch

    torch.manual_seed(0)
    return safetensors.torch.save(timm.create_model(NETWORKS[name], num_classes=1000).state_dict())


def _model(folder: Path, name: str) -> dict:
    """Write a model's weights; gives its entry in the catalogue."""
    path = folder / f"archives/{name}.safetensors"
    path.write_bytes(_weights(name))
    half = [0.5, 0.5, 0.5]
    return {
        "families": ["tiny"],
        "label": name,
        "type": "vit" if "vit" in name else "cnn",
        "pretraining": "none",
        "library": "timm",
        "architecture": NETWORKS[name],
        "source": _source(path),
        "weights": {"member": path.name, "keys": "by_name"},
        "preprocessing": {
            "input_size": SIZE,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": half,
            "std": half,
        },
        "licence": "none",
        "style": {"colour": "#000000", "marker": "osvD"[len(path.name) % 4]},
    }
