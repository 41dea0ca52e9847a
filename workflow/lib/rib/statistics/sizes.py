"""Robustness against the numbers of fine-tuning and pretraining images. No torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from rib.base.files import read_json
from rib.schema.layout import Layout
from rib.schema.run import MEAN

KEY = ["model", "method", "size"]
INTERVAL = ["ci_low", "ci_high"]
SIZE_COLUMNS = [
    "model",
    "method",
    "target",
    "size",
    "seed",
    "train_images",
    "pretraining_images",
    "ri",
    *INTERVAL,
]


def images_of_pretraining(
    stated_images: Mapping[str, int], descriptions: Iterable[Path]
) -> dict[str, int]:
    """Numbers of pretraining images by model, where known, such as {"net": 50000}.

    Args:
        stated_images: numbers that entries of models state, by model: {"net": 50000}.
        descriptions: `<model>/model.json` of each model that was pretrained here.
    """
    images = dict(stated_images)
    for description in descriptions:
        images[description.parent.name] = read_json(description)["trained"]["images"]
    return images


def size_table(
    ri: pd.DataFrame,
    mri: pd.DataFrame,
    manifests: Iterable[Path],
    pretraining_images: Mapping[str, int],
) -> pd.DataFrame:
    """RI (mean change of accuracy) of each run and their means, mRI, by number of training images.

    Args:
        ri: model, method, target, size, seed, ri, ci_low, ci_high (percentage points).
        mri: model, method, size, mri, ci_low, ci_high (percentage points).
        manifests: manifest.json of one fine-tuning for each model, target and size.
        pretraining_images: by model, such as {"net": 50000}.

    Returns:
        model, method, target (`mean` for mRI), size, seed (empty for mRI), train_images (for mRI
        the mean over targets), pretraining_images (empty if unknown), ri, ci_low, ci_high in
        percentage points.
    """
    train_images = _train_images(manifests)
    mean_images = train_images.groupby(["model", "size"], as_index=False)["train_images"].mean()
    rows_of_mri = mri.rename(columns={"mri": "ri"}).assign(target=MEAN)
    rows_of_mri["seed"] = pd.NA
    rows_of_mri = rows_of_mri.merge(mean_images, on=["model", "size"])
    rows_of_ri = ri.merge(train_images, on=["model", "target", "size"])
    table = pd.concat([rows_of_ri, rows_of_mri]).astype({"seed": "Int64"})
    table["pretraining_images"] = table["model"].map(pretraining_images).astype("Int64")
    return table[SIZE_COLUMNS]


def _train_images(manifests: Iterable[Path]) -> pd.DataFrame:
    """Images that each fine-tuning trained on: model, target, size, train_images."""
    lines = []
    for path in manifests:
        run = Layout.run_of(path)
        lines.append((run.model, run.target, run.size, read_json(path)["train_images"]))
    return pd.DataFrame(lines, columns=["model", "target", "size", "train_images"])


def pretraining_size_table(
    mri: pd.DataFrame,
    ood: pd.DataFrame,
    pretraining_images: Mapping[str, int],
) -> pd.DataFrame:
    """Accuracies and mRI by number of pretraining images, for models with a known number.

    Args:
        mri: model, method, size, mri, ci_low, ci_high (percentage points).
        ood: model, method, size, when (before or after), accuracy, ci_low, ci_high (percent); a
            row before and one after for each row of `mri`.
        pretraining_images: by model, such as {"net": 50000}.

    Returns:
        Sorted by pretraining_images: model, method, size, pretraining_images, before, before_low,
        before_high, after, after_low, after_high (mean OOD accuracies), all in percent; mri,
        ci_low, ci_high in percentage points.
    """
    is_known = mri["model"].isin(list(pretraining_images))
    table = mri[is_known][[*KEY, "mri", *INTERVAL]]
    accuracy_columns: list[str] = []
    for when, accuracies in ood.groupby("when", sort=False):
        new_names = {"accuracy": str(when), "ci_low": f"{when}_low", "ci_high": f"{when}_high"}
        added_columns = accuracies[[*KEY, *new_names]].rename(columns=new_names)
        table = table.merge(added_columns, on=KEY)
        accuracy_columns += new_names.values()
    table["pretraining_images"] = table["model"].map(pretraining_images)
    table = table.sort_values("pretraining_images", kind="stable")
    return table[[*KEY, "pretraining_images", *accuracy_columns, "mri", *INTERVAL]]
