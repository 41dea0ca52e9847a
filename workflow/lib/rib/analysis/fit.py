"""Fit: accuracy of fine-tuned runs on the images that they were trained on, and which runs are unfinished. No torch.

A run is unfinished if it was trained with a method that can fit its training images but its fit is below the family's
threshold, or if it merges the weights of such a run. Its RI describes how far training got, not what the method does.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from rib.config.run import ALL, MEAN, PRETRAINED, RUN_COLUMNS, Run, parent_of

UNFINISHED = "†"  # mark in tables and figures


def fit_table(
    fits: Mapping[Run, Mapping[str, float]],
    accuracy: pd.DataFrame,
    *,
    can_fit: Collection[str],
    threshold: float | None,
    whole_targets: bool,
) -> pd.DataFrame:
    """One row per fine-tuned run: model, method, target, size, seed, fit (percent), unfinished (yes or no).

    Args:
        fits: fit (0 to 1) of the checkpoints that make up each run's weights, by key (see rib.config.run.parent_of).
        accuracy: accuracies of runs on datasets, see `rib.analysis.tables.accuracy_table`. They are the fit of a merge that
            was trained on its whole target; that of other merges is NaN.
        can_fit: methods whose runs are unfinished below the threshold (0 to 1; None for no threshold).
        whole_targets: whether runs of size `all` train on the images that are evaluated.
    """
    on_target = (
        accuracy[accuracy["target"] == accuracy["dataset"]]
        .set_index(RUN_COLUMNS)["accuracy"]
        .to_dict()
    )
    lines = []
    for run, own in fits.items():
        if run.method != PRETRAINED:
            key = run.values(RUN_COLUMNS)
            merged = on_target.get(key) if whole_targets and run.size == ALL else None
            below = any(
                fit < (threshold or 0)
                for name, fit in own.items()
                if parent_of(name)["method"] in can_fit
            )
            lines.append(
                (
                    *key,
                    100 * own[run.method] if run.method in own else merged,
                    "yes" if below else "no",
                )
            )
    return pd.DataFrame(lines, columns=[*RUN_COLUMNS, "fit", "unfinished"]).astype({"fit": float})


def read_table(path: Path) -> pd.DataFrame:
    """A table with runs; a size is text: 10 images, 0.25 of them, or all."""
    return pd.read_csv(path, dtype={"size": str})


def marked(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns of `rib.analysis.writing.with_fit`.

    Args:
        runs: a `fit_table` whose keys have the same types as those of the table.
    """
    runs = runs.assign(unfinished=runs["unfinished"] == "yes")
    runs = runs.rename(columns={"method": "chosen"}) if "chosen" in table else runs
    keys = [column for column in runs.columns[:-2] if column in table]
    means = [runs.assign(target=MEAN, seed="")] if "target" in keys else []
    covered = pd.concat([runs, *means]).groupby(keys, as_index=False)
    covered = covered.agg(fit=("fit", "mean"), unfinished=("unfinished", "sum"))
    return (
        table.merge(covered, how="left", on=keys)
        .fillna({"unfinished": 0})
        .astype({"unfinished": int})
    )


def name_unfinished(runs: pd.DataFrame, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Name unfinished runs, one text for each model and method: `Lite0, full fine-tuning on Noto, Twemoji`.

    Args:
        runs: rows of `fit_table`; size and seed are named where they have several.
        labels: labels of `models`, `methods` and `targets`.
    """
    sized, seeds = set(runs["size"]) != {ALL}, runs["seed"].nunique() > 1
    found = []
    for (model, method), part in runs[runs["unfinished"] == "yes"].groupby(
        ["model", "method"], sort=False
    ):
        targets = [
            labels["targets"][run.target]
            + f" (size {run.size})" * sized
            + f" (seed {run.seed})" * seeds
            for run in part.itertuples()
        ]
        found.append(
            f"{labels['models'][model]}, {labels['methods'][method]} on {', '.join(targets)}"
        )
    return found
