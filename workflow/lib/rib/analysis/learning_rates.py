"""Choice of learning rates from a sweep, on the training images alone. No torch.

A method that can fit its training images gets the smallest rate at which every run reaches the threshold, so that training
is finished and goes no further than it must. Any other gets the rate with the lowest final training loss. Nothing is
evaluated: a choice by accuracy on other datasets would use what the benchmark measures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import read_json
from rib.config.run import run_of

GROUP = ["model", "method", "recipe"]


def choose(runs: pd.DataFrame, threshold: float | None) -> pd.DataFrame:
    """The runs, with the column chosen: yes for one rate of each model, method and recipe if any reaches the threshold.

    Args:
        runs: model, method, recipe, can_fit, lr, target, size, seed, fit (percent), loss (of the last epoch).
        threshold: fit (0 to 1) that every run must reach; None: all methods are chosen by their loss.
    """
    parts = []
    for _, group in runs.groupby(GROUP, sort=False):
        by_rate = group.groupby("lr").agg(fit=("fit", "min"), loss=("loss", "mean"))
        if threshold is not None and group["can_fit"].all():
            best = by_rate.index[by_rate["fit"] >= 100 * threshold].min()
        else:
            best = by_rate["loss"].idxmin()
        parts.append(group.assign(chosen=["yes" if lr == best else "no" for lr in group["lr"]]))
    return pd.concat(parts).sort_values([*GROUP, "lr", "target", "size", "seed"], kind="stable")


def choice_table(
    *,
    variants: Mapping[str, Mapping],
    threshold: float | None,
    manifests: Sequence[Path],
    histories: Sequence[Path],
) -> pd.DataFrame:
    """`choose` of all fine-tuning runs.

    Args:
        variants: `method`, `recipe`, `can_fit` and `lr` of each swept method.
        manifests, histories: of the fine-tuning runs, in the same order.
    """
    lines = []
    for manifest, history in zip(manifests, histories, strict=True):
        run, loss = run_of(manifest), pd.read_csv(history)["loss"].iloc[-1]
        lines.append(
            {
                **vars(run),
                **variants[run.method],
                "fit": 100 * read_json(manifest)["fit"],
                "loss": loss,
            }
        )
    return choose(pd.DataFrame(lines), threshold)[
        [*GROUP, "lr", "target", "size", "seed", "fit", "loss", "chosen"]
    ]
