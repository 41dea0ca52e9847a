"""Robustness against the numbers of fine-tuning and pretraining images. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import read_json, write_table

MEAN = "mean"  # target column of mRI, the mean over targets
CELL = ["model", "target", "size"]


def write_sizes(
    *,
    ri: Path,
    mri: Path,
    runs: Sequence[Mapping[str, str]],
    manifests: Sequence[Path],
    epochs: int,
    trained_here: Sequence[str],
    descriptions: Sequence[Path],
    conditions: str,
    table: Path,
) -> None:
    """Write RI, and mRI as target `mean`, with the numbers of fine-tuning and pretraining images.

    Args:
        ri: CSV of rib.analysis.tables.write_tables, without curves.
        mri: CSV of rib.analysis.tables.mri_tables.
        runs: model, target and size of one fine-tuning for each combination.
        manifests: manifest of each fine-tuning.
        epochs: epochs of a fine-tuning.
        trained_here: models that were pretrained here.
        descriptions: model.json of each of them.
        table: written as CSV: model, method, target, size, seed (empty for mRI), train_images (for mRI the mean over
            targets), pretraining_images (empty for published models), ri, ci_low, ci_high in percentage points,
            conditions.
    """
    trained = pd.DataFrame(
        [
            {**{key: run[key] for key in CELL}, "train_images": read_json(manifest)["images"] / epochs}
            for run, manifest in zip(runs, manifests, strict=True)
        ]
    )
    single = _read(ri).merge(trained, on=CELL)
    per_size = trained.groupby(["model", "size"], as_index=False)["train_images"].mean()
    mean = _read(mri).rename(columns={"mri": "ri"}).assign(target=MEAN, seed=pd.NA)
    found = pd.concat([single, mean.merge(per_size, on=["model", "size"])], ignore_index=True)
    described = zip(trained_here, descriptions, strict=True)
    seen = {model: read_json(path)["trained"]["images"] for model, path in described}
    found = found.assign(
        seed=found["seed"].astype("Int64"),
        pretraining_images=found["model"].map(seen).astype("Int64"),
        conditions=conditions,
    )
    columns = ["method", "target", "size", "seed", "train_images", "pretraining_images", "ri", "ci_low", "ci_high"]
    write_table(table, found[["model", *columns, "conditions"]])


def write_pretraining_sizes(
    *,
    mri: Path,
    ood: Path,
    trained_here: Sequence[str],
    descriptions: Sequence[Path],
    conditions: str,
    table: Path,
) -> None:
    """Write accuracies before and after fine-tuning of models that were pretrained here on subsets of one dataset.

    Args:
        mri: CSV of rib.analysis.tables.mri_tables.
        ood: CSV of rib.analysis.tables.mri_tables.
        trained_here: models that were pretrained here.
        descriptions: model.json of each of them.
        table: written as CSV, sorted by pretraining_images: model, method, size, pretraining_images, held_out (accuracy
            on held-out in-distribution images), before, before_low, before_high, after, after_low, after_high (mean OOD
            accuracies), all in percent; mri, ci_low, ci_high in percentage points; conditions.
    """
    key = ["model", "method", "size"]
    found = _read(mri)
    found = found[found["model"].isin(trained_here)][[*key, "mri", "ci_low", "ci_high"]]
    means = _read(ood)
    for when, rows in means.groupby("when", sort=False):
        names = {"accuracy": when, "ci_low": f"{when}_low", "ci_high": f"{when}_high"}
        found = found.merge(rows[[*key, *names]].rename(columns=names), on=key)
    described = zip(trained_here, descriptions, strict=True)
    facts = {model: read_json(path)["trained"] for model, path in described}
    found["pretraining_images"] = found["model"].map({model: fact["images"] for model, fact in facts.items()})
    found["held_out"] = found["model"].map({model: fact["test"]["accuracy"] for model, fact in facts.items()})
    found = found.sort_values("pretraining_images", kind="stable").assign(conditions=conditions)
    accuracies = [f"{when}{end}" for when in ("before", "after") for end in ("", "_low", "_high")]
    columns = [*key, "pretraining_images", "held_out", *accuracies, "mri", "ci_low", "ci_high", "conditions"]
    write_table(table, found[columns])


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"size": str}).drop(columns="conditions")
