"""What a reader needs to know of a run's datasets and models to trust its numbers. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rib.analysis.counts import read_objects
from rib.base.files import read_json
from rib.base.progress import log
from rib.config.label_space import LabelSpace
from rib.data.identity import identical_images, identical_to, of_other_classes, read_identities

IDENTICAL = ["identical", "shared", "shared_with", "other_class"]
DATA = ["dataset", "label", "role", "images", "evaluated", "left_out", "objects", "classes"]
MODELS = ["model", "architecture", "pretraining", "head", "pixels", "own_pixels", "licence"]


def data_and_models(
    *,
    datasets: Mapping[str, Mapping[str, str]],
    models: Mapping[str, Mapping[str, str | int]],
    accuracy: Path,
    prepared: Sequence[Path],
    indexes: Sequence[Path],
    classes: Sequence[Path],
    descriptions: Sequence[Path],
) -> dict[str, pd.DataFrame]:
    """The tables `data` and `models`.

    Args:
        datasets: label, role, licence, origin and `excluded` (why images are not evaluated, if any are not) by name.
        models: architecture, pretraining, licence, pixels and own_pixels (side of the input here, and published) by name.
        accuracy: table of accuracies, which says how many images of each dataset were evaluated.
        prepared, indexes, classes: manifest, index and classes of each dataset, in their order.
        descriptions: {model}/model.json of each model, and perhaps of more, which says where its head is from.
    """
    evaluated = pd.read_csv(accuracy).groupby("dataset")["n"].max()
    objects = read_objects(indexes)
    same = identical_table(
        {name: facts["label"] for name, facts in datasets.items()}, indexes, classes
    )
    lines = []
    for (name, facts), manifest in zip(datasets.items(), prepared, strict=True):
        images = len(objects[name])
        scored = int(evaluated.get(name, 0))
        undecodable = len(read_json(manifest)["corrupt"])
        lines.append(
            {
                "dataset": name,
                "label": facts["label"],
                "role": facts["role"],
                "images": images,
                "evaluated": scored,
                "left_out": left_out(images, scored, undecodable, facts["excluded"]),
                "objects": objects[name]["object_id"].nunique(),
                "classes": objects[name]["label"].nunique(),
                "licence": facts["licence"],
                "origin": facts["origin"],
            }
        )
    data = pd.DataFrame(lines, columns=[*DATA, "licence", "origin"]).merge(same, on="dataset")
    heads = {path.parent.name: head_of(read_json(path)["head"]) for path in descriptions}
    of_models = [{"model": name, "head": heads[name], **facts} for name, facts in models.items()]
    return {
        "data": data[[*DATA, *IDENTICAL, "licence", "origin"]],
        "models": pd.DataFrame(of_models, columns=MODELS),
    }


def left_out(images: int, evaluated: int, undecodable: int, excluded: str) -> str:
    """Numbers of images that are not evaluated, with the reason; empty if there are none.

    Args:
        images: prepared images.
        evaluated: those that runs were evaluated on; 0 of a dataset that is not evaluated at all.
        undecodable: published images that can't be decoded, so that they were not prepared.
        excluded: the reason for others.
    """
    reasons = []
    if undecodable:
        reasons.append(f"{undecodable} that can't be decoded")
    if 0 < evaluated < images:
        reasons.append(f"{images - evaluated}: {excluded}")
    return "; ".join(reasons)


def head_of(facts: Mapping[str, object]) -> str:
    """Where a model's head is from, in words."""
    if facts["from"] == "fitted":
        return f"linear, fitted on {facts['images']} images of the pretraining proxy"
    if facts["from"] == "zero_shot":
        return "zero-shot, from names of classes"
    if facts["from"] == "pretrained":
        return "trained here with the network"
    return "published with the weights"


def identical_table(
    labels: Mapping[str, str], indexes: Sequence[Path], classes: Sequence[Path]
) -> pd.DataFrame:
    """Numbers of identical images of each dataset, which the log has too if there are any.

    Args:
        labels: of the datasets by name, in the order of indexes and classes.

    Returns:
        One row per dataset: dataset, identical (images that are identical to another of the dataset), shared (to one of
        another dataset), shared_with (labels of these, with the number of images), other_class (to one of another
        class, of any dataset). Numbers are empty if an index does not say which images are identical.
    """
    photos = dict(zip(labels, map(read_identities, indexes), strict=True))
    outputs = dict(zip(labels, map(_outputs_of_images, indexes, classes), strict=True))
    conflicting = _of_other_classes(photos, outputs)
    lines = []
    for name, label in labels.items():
        own = photos[name]
        shared_with = {
            labels[other]: identical_to(own, theirs)
            for other, theirs in photos.items()
            if other != name
        }
        in_another = _any_of(shared_with.values(), len(own))
        named = ", ".join(
            f"{other} {images.sum()}" for other, images in shared_with.items() if images.any()
        )
        flags = identical_images(own), in_another, conflicting[name]
        identical, shared, other_class = (int(images.sum()) for images in flags)
        if identical or shared:
            said = "%s: %d images are identical to another, %d to one of another dataset (%s), "
            said += "%d to one of another class"
            log.info(said, label, identical, shared, named or "none", other_class)
        known = own.null_count == 0
        numbers = (identical, shared, named, other_class) if known else (None,) * len(IDENTICAL)
        lines.append((name, *numbers))
    table = pd.DataFrame(lines, columns=["dataset", *IDENTICAL])
    return table.astype(dict.fromkeys(["identical", "shared", "other_class"], "Int64"))


def _any_of(flags: Iterable[np.ndarray], images: int) -> np.ndarray:
    """Whether one of the flags of each image is set: (n,) bool."""
    any_flag = np.zeros(images, bool)
    for flag in flags:
        any_flag |= flag
    return any_flag


def _outputs_of_images(index: Path, classes: Path) -> np.ndarray:
    """The network outputs of each image's class, as text: (n,). Classes with the same are the same."""
    space = LabelSpace.from_json(read_json(classes))
    labels = pq.read_table(index, columns=["label"])["label"].to_numpy()
    return np.array([" ".join(map(str, outputs)) for outputs in space.indices])[labels]


def _of_other_classes(
    photos: Mapping[str, pa.Array], outputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Which images of each dataset are identical to one of another class: (n,) bool."""
    _, classes = np.unique(np.concatenate([*outputs.values()]), return_inverse=True)
    conflicting = of_other_classes(pa.concat_arrays(photos.values()), classes)
    ends = np.cumsum([len(own) for own in photos.values()])[:-1]
    return dict(zip(photos, np.split(conflicting, ends), strict=True))
