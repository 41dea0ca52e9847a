"""Robustness against the numbers of fine-tuning and pretraining images. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.analysis.fit import read_table
from rib.base.files import read_json
from rib.config.run import MEAN

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


def size_tables(
    *,
    ri: Path,
    mri: Path,
    ood: Path,
    runs: Sequence[Mapping[str, str]],
    manifests: Sequence[Path],
    stated: Mapping[str, int],
    trained_here: Sequence[str],
    descriptions: Sequence[Path],
) -> dict[str, pd.DataFrame]:
    """RI by number of fine-tuning images, and accuracies by number of pretraining images.

    Args:
        ri, mri, ood: CSV of rib.analysis.tables.
        runs, manifests: model, target and size of one fine-tuning for each combination, and its
            manifest.
        stated: numbers of pretraining images that entries of published models state, by model.
        trained_here, descriptions: models that were pretrained here, and model.json of each.

    Returns:
        sizes: model, method, target (`mean` for mRI), size, seed (empty for mRI), train_images (for
        mRI the mean over targets), pretraining_images (empty if not known), ri, ci_low, ci_high in
        percentage points;
        pretraining_sizes, of models with a known number, sorted by it: model, method, size,
        pretraining_images, held_out (accuracy on held-out in-distribution images; empty for
        published models), before, before_low, before_high, after, after_low, after_high (mean OOD
        accuracies), all in percent; mri, ci_low, ci_high in percentage points.
    """
    pretraining_images = dict(stated)
    held_out = {}  # accuracy in percent by model
    for model, description in zip(trained_here, descriptions, strict=True):
        facts = read_json(description)["trained"]
        pretraining_images[model] = facts["images"]
        held_out[model] = facts["test"]["accuracy"]
    train_images = pd.DataFrame(runs).assign(
        train_images=[read_json(path)["train_images"] for path in manifests]
    )
    table_of_mri = read_table(mri)
    return {
        "sizes": _sizes(read_table(ri), table_of_mri, train_images, pretraining_images),
        "pretraining_sizes": _pretraining_sizes(
            table_of_mri, read_table(ood), pretraining_images, held_out
        ),
    }


def _sizes(
    ri: pd.DataFrame,
    mri: pd.DataFrame,
    train_images: pd.DataFrame,
    pretraining_images: Mapping[str, int],
) -> pd.DataFrame:
    """The table sizes of `size_tables`.

    Args:
        train_images: by model, target and size.
        pretraining_images: by model.
    """
    mean_images = train_images.groupby(["model", "size"], as_index=False)["train_images"].mean()
    rows_of_mri = mri.rename(columns={"mri": "ri"}).assign(target=MEAN, seed=pd.NA)
    rows_of_mri = rows_of_mri.merge(mean_images, on=["model", "size"])
    rows_of_ri = ri.merge(train_images, on=["model", "target", "size"])
    table = pd.concat([rows_of_ri, rows_of_mri]).astype({"seed": "Int64"})
    table["pretraining_images"] = table["model"].map(pretraining_images).astype("Int64")
    return table[SIZE_COLUMNS]


def _pretraining_sizes(
    mri: pd.DataFrame,
    ood: pd.DataFrame,
    pretraining_images: Mapping[str, int],
    held_out: Mapping[str, float],
) -> pd.DataFrame:
    """The table pretraining_sizes of `size_tables`.

    Args:
        pretraining_images, held_out: by model.
    """
    is_known = mri["model"].isin(list(pretraining_images))
    table = mri[is_known][[*KEY, "mri", *INTERVAL]]
    accuracy_columns = []
    for when, accuracies in ood.groupby("when", sort=False):
        names = {"accuracy": when, "ci_low": f"{when}_low", "ci_high": f"{when}_high"}
        accuracies = accuracies[[*KEY, *names]].rename(columns=names)
        table = table.merge(accuracies, on=KEY)
        accuracy_columns += names.values()
    table["pretraining_images"] = table["model"].map(pretraining_images)
    table["held_out"] = table["model"].map(held_out)
    table = table.sort_values("pretraining_images", kind="stable")
    facts = ["pretraining_images", "held_out"]
    return table[[*KEY, *facts, *accuracy_columns, "mri", *INTERVAL]]
