"""Robustness against the numbers of fine-tuning and pretraining images. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.analysis.fit import read_table
from rib.base.files import read_json
from rib.config.run import MEAN

KEY = ["model", "method", "size"]
INTERVAL = ["ci_low", "ci_high"]


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
    """RI by number of fine-tuning images, and accuracies before and after by number of pretraining images.

    Args:
        runs, manifests: model, target and size of one fine-tuning for each combination, and its manifest.
        stated: numbers of pretraining images that entries of published models state, by model.
        trained_here, descriptions: models that were pretrained here, and model.json of each.

    Returns:
        sizes: model, method, target (`mean` for mRI), size, seed (empty for mRI), train_images (for mRI the mean over
        targets), pretraining_images (empty if not known), ri, ci_low, ci_high in percentage points;
        pretraining_sizes, of models with a known number, sorted by it: model, method, size, pretraining_images, held_out
        (accuracy on held-out in-distribution images; empty for published models), before, before_low, before_high,
        after, after_low, after_high (mean OOD accuracies), all in percent; mri, ci_low, ci_high in percentage points.
    """
    facts = {
        model: read_json(path)["trained"]
        for model, path in zip(trained_here, descriptions, strict=True)
    }
    images = stated | {model: fact["images"] for model, fact in facts.items()}
    trained = pd.DataFrame(runs).assign(
        train_images=[read_json(path)["train_images"] for path in manifests]
    )
    means, per_size = (
        read_table(mri),
        trained.groupby(["model", "size"], as_index=False)["train_images"].mean(),
    )
    of_mri = (
        means.rename(columns={"mri": "ri"})
        .assign(target=MEAN, seed=pd.NA)
        .merge(per_size, on=["model", "size"])
    )
    found = pd.concat([read_table(ri).merge(trained, on=["model", "target", "size"]), of_mri])
    found = found.astype({"seed": "Int64"}).assign(
        pretraining_images=found["model"].map(images).astype("Int64")
    )
    columns = [
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

    known = means[means["model"].isin(list(images))][[*KEY, "mri", *INTERVAL]]
    accuracies = []
    for when, rows in read_table(ood).groupby("when", sort=False):
        names = {"accuracy": when, "ci_low": f"{when}_low", "ci_high": f"{when}_high"}
        known = known.merge(rows[[*KEY, *names]].rename(columns=names), on=KEY)
        accuracies += names.values()
    known["pretraining_images"] = known["model"].map(images)
    known["held_out"] = known["model"].map(
        {model: fact["test"]["accuracy"] for model, fact in facts.items()}
    )
    ordered = [*KEY, "pretraining_images", "held_out", *accuracies, "mri", *INTERVAL]
    known = known.sort_values("pretraining_images", kind="stable")[ordered]
    return {"sizes": found[columns], "pretraining_sizes": known}
