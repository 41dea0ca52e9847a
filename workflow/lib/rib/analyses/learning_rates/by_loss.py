"""Choice of learning rates from a sweep, on the training images alone: protocol paper. No torch.

A method that can fit its training images gets the smallest rate at which every run reaches the
threshold, so training is finished and goes no further than needed. Any other method gets the rate
with the lowest final training loss. Nothing is evaluated: a choice by accuracy on other datasets
would use what the benchmark measures. `rib.analyses.learning_rates.held_out` has the other
protocol.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rib.base.files import read_json
from rib.schema.layout import Layout

GROUP = ["model", "method", "recipe"]


@dataclass(frozen=True)
class SweptMethod:
    """A variant of a method that differs from others in its learning rate, such as ft-lr0.001."""

    method: str  # method with other swept settings, such as lora-rank4
    entry: str  # in the catalogue, such as lora
    recipe: str  # name of the training settings, such as paper
    can_fit: bool  # whether it can fit its training images
    lr: Mapping[str, float]  # learning rate by model: {"net": 0.001}


def choose(runs: pd.DataFrame, threshold: float | None) -> pd.DataFrame:
    """The runs, with a column that says whether their learning rate is chosen.

    chosen is yes for the runs of one rate per model, method and recipe, else no. If no rate reaches
    the threshold, all are no. Rows are sorted by model, method, recipe, rate and run.

    Args:
        runs: model, method, recipe, can_fit, lr, target, size, seed, fit (percent), loss (of the
            last epoch).
        threshold: fit (accuracy on training images, 0 to 1) that every run must reach; None
            chooses all methods by their loss.
    """
    tables = []
    for _, sweep in runs.groupby(GROUP, sort=False):
        rates = sweep.groupby("lr").agg(lowest_fit=("fit", "min"), mean_loss=("loss", "mean"))
        if threshold is not None and sweep["can_fit"].all():
            reaches_threshold = rates["lowest_fit"] >= 100 * threshold
            chosen_rate = rates.index[reaches_threshold].min()  # NaN if there is none
        else:
            chosen_rate = rates["mean_loss"].idxmin()
        chosen = ["yes" if lr == chosen_rate else "no" for lr in sweep["lr"]]
        tables.append(sweep.assign(chosen=chosen))
    return pd.concat(tables).sort_values([*GROUP, "lr", "target", "size", "seed"], kind="stable")


def choice_table(
    *,
    manifests: Sequence[Path],
    histories: Sequence[Path],
    swept_methods: Mapping[str, SweptMethod],
    threshold: float | None,
) -> pd.DataFrame:
    """All fine-tuning runs, and whether their rate is chosen (yes or no).

    Args:
        manifests, histories: of the fine-tuning runs, in the same order: JSON files with the fit,
            CSV files with the loss of each epoch.
        swept_methods: by name of the method in runs, such as {"ft-lr0.001": SweptMethod(...)}.
        threshold: fit (0 to 1) that every run must reach; None chooses all methods by their loss.

    Returns:
        model, method, recipe, lr, target, size, seed, fit (percent), loss, chosen.
    """
    rows = []
    for manifest, history in zip(manifests, histories, strict=True):
        run = Layout.run_of(manifest)
        swept = swept_methods[run.method]
        row = {
            "model": run.model,
            "method": swept.method,
            "recipe": swept.recipe,
            "can_fit": swept.can_fit,
            "lr": swept.lr[run.model],
            "target": run.target,
            "size": run.size,
            "seed": run.seed,
            "fit": 100 * read_json(manifest)["fit"],
            "loss": pd.read_csv(history)["loss"].iloc[-1],
        }
        rows.append(row)
    table = choose(pd.DataFrame(rows), threshold)
    return table[[*GROUP, "lr", "target", "size", "seed", "fit", "loss", "chosen"]]
