"""How much robustness survives by the number of images: those fine-tuned on, and those pretrained on. No torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from rib.io import read_json, write_table

MEAN = "mean"  # in the place of a target: mRI, the mean over targets
CELL = ["model", "target", "size"]


def write_sizes(
    *,
    ri: Path,
    mri: Path,
    finetunings: Iterable[Mapping[str, str]],
    epochs: int,
    descriptions: Mapping[str, Path],
    conditions: str,
    table: Path,
) -> None:
    """Write RI, and as target `mean` mRI, with the numbers of images behind them.

    Args:
        ri: CSV of rib.metrics.write_tables, in which curves have no part.
        mri: CSV of rib.metrics.mri_tables.
        finetunings: one fine-tuning's model, target, size and the path of its manifest; of each such three.
        epochs: passes of a fine-tuning over its images.
        descriptions: model.json by model, of those that were pretrained here.
        conditions: what the numbers hang on besides their columns.
        table: written as CSV: model, method, target, size, seed (none for mRI), train_images (for mRI their mean over
            targets), pretraining_images (none of published models), ri, ci_low, ci_high in percentage points, conditions.
    """
    trained = pd.DataFrame(
        [
            {**{key: run[key] for key in CELL}, "train_images": read_json(Path(run["manifest"]))["images"] / epochs}
            for run in finetunings
        ]
    )
    single = _read(ri).merge(trained, on=CELL)
    per_size = trained.groupby(["model", "size"], as_index=False)["train_images"].mean()
    mean = _read(mri).rename(columns={"mri": "ri"}).assign(target=MEAN, seed=pd.NA)
    found = pd.concat([single, mean.merge(per_size, on=["model", "size"])], ignore_index=True)
    seen = {model: read_json(Path(path))["trained"]["images"] for model, path in descriptions.items()}
    found = found.assign(
        seed=found["seed"].astype("Int64"),
        pretraining_images=found["model"].map(seen).astype("Int64"),
        conditions=conditions,
    )
    columns = ["method", "target", "size", "seed", "train_images", "pretraining_images", "ri", "ci_low", "ci_high"]
    write_table(table, found[["model", *columns, "conditions"]])


def write_pretraining_sizes(
    *, mri: Path, ood: Path, descriptions: Mapping[str, Path], conditions: str, table: Path
) -> None:
    """Write accuracies before and after fine-tuning of models that were pretrained here on parts of one dataset.

    Args:
        mri: CSV of rib.metrics.mri_tables.
        ood: likewise.
        descriptions: model.json by model, of those that were pretrained here.
        conditions: what the numbers hang on besides their columns.
        table: written as CSV, smaller pretraining first: model, method, size, pretraining_images, held_out (accuracy on
            held-out images like those pretrained on), before, before_low, before_high, after, after_low, after_high (mean
            OOD accuracies), all in percent; mri, ci_low, ci_high in percentage points; conditions.
    """
    key = ["model", "method", "size"]
    found = _read(mri)
    found = found[found["model"].isin(list(descriptions))][[*key, "mri", "ci_low", "ci_high"]]
    means = _read(ood)
    for when, rows in means.groupby("when", sort=False):
        names = {"accuracy": when, "ci_low": f"{when}_low", "ci_high": f"{when}_high"}
        found = found.merge(rows[[*key, *names]].rename(columns=names), on=key)
    facts = {model: read_json(Path(path))["trained"] for model, path in descriptions.items()}
    found["pretraining_images"] = found["model"].map({model: fact["images"] for model, fact in facts.items()})
    found["held_out"] = found["model"].map({model: fact["test"]["accuracy"] for model, fact in facts.items()})
    found = found.sort_values("pretraining_images", kind="stable").assign(conditions=conditions)
    accuracies = [f"{when}{end}" for when in ("before", "after") for end in ("", "_low", "_high")]
    columns = [*key, "pretraining_images", "held_out", *accuracies, "mri", "ci_low", "ci_high", "conditions"]
    write_table(table, found[columns])


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"size": str}).drop(columns="conditions")
