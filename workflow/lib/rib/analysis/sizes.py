"""Robustness against the numbers of fine-tuning and pretraining images. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.analysis.fit import read_table
from rib.base.files import read_json, write_table
from rib.config.run import MEAN


def write_sizes(
    *,
    ri: Path,
    mri: Path,
    runs: Sequence[Mapping[str, str]],
    manifests: Sequence[Path],
    trained_here: Sequence[str],
    descriptions: Sequence[Path],
    conditions: str,
    table: Path,
) -> None:
    """Write RI, and mRI as target `mean`, with the numbers of fine-tuning and pretraining images.

    Args:
        runs, manifests: model, target and size of one fine-tuning for each combination, and its manifest.
        trained_here, descriptions: models that were pretrained here, and model.json of each.
        table: written as CSV: model, method, target, size, seed (empty for mRI), train_images (for mRI the mean over
            targets), pretraining_images (empty for published models), ri, ci_low, ci_high in percentage points,
            conditions.
    """
    trained = pd.DataFrame(runs).assign(train_images=[read_json(path)["train_images"] for path in manifests])
    single = read_table(ri).merge(trained, on=["model", "target", "size"])
    per_size = trained.groupby(["model", "size"], as_index=False)["train_images"].mean()
    mean = read_table(mri).rename(columns={"mri": "ri"}).assign(target=MEAN, seed=pd.NA)
    found = pd.concat([single, mean.merge(per_size, on=["model", "size"])], ignore_index=True)
    seen = {model: facts["images"] for model, facts in _trainings(trained_here, descriptions).items()}
    found = found.assign(seed=found["seed"].astype("Int64"), conditions=conditions)
    found["pretraining_images"] = found["model"].map(seen).astype("Int64")
    columns = ["method", "target", "size", "seed", "train_images", "pretraining_images", "ri", "ci_low", "ci_high"]
    write_table(table, found[["model", *columns, "conditions"]])


def write_pretraining_sizes(
    *,
    mri: Path,
    ood: Path,
    stated: Mapping[str, int],
    trained_here: Sequence[str],
    descriptions: Sequence[Path],
    conditions: str,
    table: Path,
) -> None:
    """Write accuracies before and after fine-tuning of models whose number of pretraining images is known.

    Args:
        stated: numbers that entries of published models state, by model.
        trained_here, descriptions: as for `write_sizes`.
        table: written as CSV, sorted by pretraining_images: model, method, size, pretraining_images, held_out (accuracy
            on held-out in-distribution images; empty for published models), before, before_low, before_high, after, after_low, after_high (mean OOD
            accuracies), all in percent; mri, ci_low, ci_high in percentage points; conditions.
    """
    key = ["model", "method", "size"]
    facts = _trainings(trained_here, descriptions)
    images = {**stated, **{model: fact["images"] for model, fact in facts.items()}}
    found = read_table(mri)
    found = found[found["model"].isin(list(images))][[*key, "mri", "ci_low", "ci_high"]]
    for when, rows in read_table(ood).groupby("when", sort=False):
        names = {"accuracy": when, "ci_low": f"{when}_low", "ci_high": f"{when}_high"}
        found = found.merge(rows[[*key, *names]].rename(columns=names), on=key)
    found["pretraining_images"] = found["model"].map(images)
    found["held_out"] = found["model"].map({model: fact["test"]["accuracy"] for model, fact in facts.items()})
    found = found.sort_values("pretraining_images", kind="stable").assign(conditions=conditions)
    accuracies = [f"{when}{end}" for when in ("before", "after") for end in ("", "_low", "_high")]
    columns = [*key, "pretraining_images", "held_out", *accuracies, "mri", "ci_low", "ci_high", "conditions"]
    write_table(table, found[columns])


def _trainings(models: Sequence[str], descriptions: Sequence[Path]) -> dict[str, dict]:
    """What is recorded of each model's pretraining."""
    return {model: read_json(path)["trained"] for model, path in zip(models, descriptions, strict=True)}
