"""Facts about datasets and models that a reader needs to trust the numbers of a run. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.files import read_json
from rib.base.progress import log
from rib.catalog.label_space import LabelSpace
from rib.data.identity import identical_images, identical_to, of_other_classes, read_identities
from rib.data.splits import SELECT, TEST, TRAIN
from rib.statistics.counts import read_objects
from rib.statistics.inputs import Inputs

IDENTICAL = ["identical", "shared", "shared_with", "other_class"]
DATA = ["dataset", "label", "role", "images", "evaluated", "left_out", "objects", "classes"]
LICENCE = ["licence", "origin"]
SPLITS = [TRAIN, SELECT, TEST]
LABELS = [
    *("model", "dataset", "label", "verdict", "images", "accuracy", "median_accuracy"),
    *("mapping", "mapping_accuracy", "p_holm"),
]
MODELS = ["model", "architecture", "pretraining", "head", "pixels", "own_pixels", "licence"]


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: data (a row per dataset), models and perhaps labels."""
    datasets = inputs.params["datasets"]
    data = data_table(
        datasets=datasets,
        manifests=inputs.paths("prepared"),
        indexes=inputs.paths("indexes"),
        classes=inputs.paths("classes"),
        accuracy=inputs.table("accuracy"),
        splits=dict(zip(inputs.params["split"], inputs.paths("splits"), strict=True)),
    )
    models = model_table(inputs.params["models"], inputs.paths("descriptions"))
    made = {"data": data, "models": models}
    if verdicts := inputs.paths("verdicts"):
        labels = {name: facts["label"] for name, facts in datasets.items()}
        made["labels"] = label_table(labels, verdicts)
    return made


def data_table(
    datasets: Mapping[str, Mapping[str, str]],
    manifests: Sequence[Path],
    indexes: Sequence[Path],
    classes: Sequence[Path],
    accuracy: pd.DataFrame,
    splits: Mapping[str, Path],
) -> pd.DataFrame:
    """Role, licence and numbers of images, objects and classes of each dataset.

    Args:
        datasets: texts by name, such as {"noto": {"label": "Noto", "role": "counts in RI;
            fine-tuned on", "excluded": "the budget", "licence": ..., "origin": ...}}; excluded is
            why images are not evaluated.
        manifests, indexes, classes: files of the prepared datasets, in the same order.
        accuracy: columns dataset and n, the number of evaluated images.
        splits: files with the columns part and images, by dataset; they add the columns train,
            select and test with numbers of images. Empty under protocol paper.
    """
    evaluated_images = accuracy.groupby("dataset")["n"].max()
    objects = read_objects(indexes)
    rows = []
    for (name, facts), manifest in zip(datasets.items(), manifests, strict=True):
        images = len(objects[name])
        evaluated = int(evaluated_images.get(name, 0))
        undecodable = len(read_json(manifest)["corrupt"])
        rows.append(
            {
                "dataset": name,
                "label": facts["label"],
                "role": facts["role"],
                "images": images,
                "evaluated": evaluated,
                "left_out": left_out(images, evaluated, undecodable, facts["excluded"]),
                "objects": objects[name]["object_id"].nunique(),
                "classes": objects[name]["label"].nunique(),
                "licence": facts["licence"],
                "origin": facts["origin"],
            }
        )
    labels = {name: facts["label"] for name, facts in datasets.items()}
    identical = identical_table(labels, indexes, classes)
    table = pd.DataFrame(rows, columns=[*DATA, *LICENCE]).merge(identical, on="dataset")
    if not splits:
        return table[[*DATA, *IDENTICAL, *LICENCE]]
    table = table.merge(_images_of_splits(splits), on="dataset", how="left")
    return table[[*DATA, *SPLITS, *IDENTICAL, *LICENCE]]


def _images_of_splits(splits: Mapping[str, Path]) -> pd.DataFrame:
    """One row per dataset: dataset, and the numbers of images in train, select and test.

    Select images are left out of training to choose settings.
    """
    rows = []
    for dataset, path in splits.items():
        split = pd.read_parquet(path, columns=["part", "images"])
        images_of_parts = split.groupby("part")["images"].sum()
        images = {part: int(images_of_parts.get(part, 0)) for part in SPLITS}
        rows.append({"dataset": dataset, **images})
    return pd.DataFrame(rows).astype(dict.fromkeys(SPLITS, "Int64"))


def model_table(
    models: Mapping[str, Mapping[str, str | int]], descriptions: Sequence[Path]
) -> pd.DataFrame:
    """Architecture, pretraining, head, sizes and licence of each model.

    Args:
        models: by name, facts that need no weights: architecture; pretraining (its data); pixels
            (side of the images here); own_pixels (side for the published network); licence.
        descriptions: {model}/model.json of each model, and perhaps more, with the source of its
            head.
    """
    head_of_model = {}
    for path in descriptions:
        model = path.parent.name
        head_of_model[model] = head_of(read_json(path)["head"])
    rows = []
    for model, facts in models.items():
        rows.append({"model": model, "head": head_of_model[model], **facts})
    return pd.DataFrame(rows, columns=MODELS)


def label_table(labels: Mapping[str, str], verdicts: Sequence[Path]) -> pd.DataFrame:
    """Verdicts on the labels of datasets: do they, or other labels, agree with a network?

    Args:
        labels: label by name of dataset, in the order of rows.
        verdicts: JSON file of each model's check of labels.

    Returns:
        One row per model and dataset: model, dataset, label (of the dataset), verdict, images,
        accuracy and median_accuracy (percent), and for the best other mapping (rule that gives
        other labels, such as one_too_low) its name, accuracy (percent) and Holm-adjusted p, empty
        if there is none.
    """
    rows = []
    for path in verdicts:
        of_model = read_json(path)
        for dataset, label in labels.items():
            if dataset not in of_model["datasets"]:  # it is read, but not evaluated
                continue
            verdict = of_model["datasets"][dataset]
            row = {
                "model": of_model["model"],
                "dataset": dataset,
                "label": label,
                "verdict": verdict["verdict"],
                "images": verdict["images"],
                "accuracy": verdict["accuracy"],
                "median_accuracy": of_model["median_accuracy"],
            }
            mappings = verdict["mappings"]
            if mappings:
                best_mapping = max(mappings, key=lambda name: mappings[name]["accuracy"])
                row["mapping"] = best_mapping
                row["mapping_accuracy"] = mappings[best_mapping]["accuracy"]
                row["p_holm"] = mappings[best_mapping]["p_holm"]
            rows.append(row)
    return pd.DataFrame(rows, columns=LABELS)


def left_out(images: int, evaluated: int, undecodable: int, excluded: str) -> str:
    """Numbers of images that are not evaluated, with the reason; empty if there are none.

    Args:
        evaluated: evaluated images; 0 for a dataset that is not evaluated at all.
        undecodable: published images that can't be decoded, so they were not prepared.
    """
    reasons = []
    if undecodable:
        reasons.append(f"{undecodable} that can't be decoded")
    if 0 < evaluated < images:
        reasons.append(f"{images - evaluated}: {excluded}")
    return "; ".join(reasons)


def head_of(facts: Mapping[str, object]) -> str:
    """Source of a model's head (its last layer), in words.

    Args:
        facts: such as {"from": "fitted", "images": 5000}.
    """
    if facts["from"] == "fitted":
        return f"linear, fitted on {facts['images']} images of the pretraining proxy"
    if facts["from"] == "zero_shot":
        return "zero-shot, from names of classes"
    if facts["from"] == "pretrained":
        return "trained with the network"
    return "published with the weights"


def identical_table(
    labels: Mapping[str, str], indexes: Sequence[Path], classes: Sequence[Path]
) -> pd.DataFrame:
    """Numbers of identical images of each dataset, which are also logged.

    Args:
        labels: label by name of dataset, in the order of indexes and classes.

    Returns:
        One row per dataset: dataset, identical (images identical to another image of the dataset),
        shared (identical to an image of another dataset), shared_with (labels of these datasets
        with numbers of images), other_class (identical to an image of another class in any
        dataset).
    """
    # (n,) by dataset: a text for each image, which identical images share.
    identities = {name: read_identities(index) for name, index in zip(labels, indexes, strict=True)}
    outputs = {
        name: _outputs_of_images(index, classes_of_dataset)
        for name, index, classes_of_dataset in zip(labels, indexes, classes, strict=True)
    }
    is_of_other_class = _of_other_classes(identities, outputs)
    rows: list[dict[str, Any]] = []
    for name, label in labels.items():
        is_shared, shared_with = _shared_images(name, identities, labels)
        row: dict[str, Any] = {
            "dataset": name,
            "identical": int(identical_images(identities[name]).sum()),
            "shared": int(is_shared.sum()),
            "shared_with": shared_with,
            "other_class": int(is_of_other_class[name].sum()),
        }
        rows.append(row)
        if row["identical"] or row["shared"]:
            log.info(
                "%s: %d images are identical to another, %d to one of another dataset (%s), "
                "%d to one of another class",
                label,
                row["identical"],
                row["shared"],
                shared_with or "none",
                row["other_class"],
            )
    return pd.DataFrame(rows, columns=["dataset", *IDENTICAL])


def _shared_images(
    dataset: str, identities: Mapping[str, pa.Array], labels: Mapping[str, str]
) -> tuple[np.ndarray, str]:
    """Images identical to one of another dataset, (n,) bool, and text: "Noto 3, Twemoji 5"."""
    is_shared = np.zeros(len(identities[dataset]), bool)
    shared_with = []
    for other_dataset, other_identities in identities.items():
        if other_dataset == dataset:
            continue
        is_shared_with_other = identical_to(identities[dataset], other_identities)
        is_shared |= is_shared_with_other
        if is_shared_with_other.any():
            shared_with.append(f"{labels[other_dataset]} {is_shared_with_other.sum()}")
    return is_shared, ", ".join(shared_with)


def _outputs_of_images(index: Path, classes: Path) -> np.ndarray:
    """Network outputs of each image's class, (n,) texts such as "281 282", to compare classes."""
    space = LabelSpace.from_json(read_json(classes))
    outputs_of_classes = [" ".join(map(str, outputs)) for outputs in space.indices]
    labels = pq.read_table(index, columns=["label"])["label"].to_numpy()
    return np.array(outputs_of_classes)[labels]


def _of_other_classes(
    identities: Mapping[str, pa.Array], outputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Images identical to an image of another class, in any dataset: (n,) bool by dataset."""
    all_outputs = np.concatenate(list(outputs.values()))
    _, class_numbers = np.unique(all_outputs, return_inverse=True)
    all_identities = pa.concat_arrays(identities.values())
    is_of_other_class = of_other_classes(all_identities, class_numbers)
    sizes = [len(of_dataset) for of_dataset in identities.values()]
    ends_of_datasets = np.cumsum(sizes)
    by_dataset = np.split(is_of_other_class, ends_of_datasets[:-1])
    return dict(zip(identities, by_dataset, strict=True))
