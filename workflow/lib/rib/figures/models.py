"""Pretrained models before and after fine-tuning with one method: accuracies, and ranks joined by lines."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.figures import Drawn, Styles


def draw(
    ranks: pd.DataFrame, *, method: str, method_label: str, models: Styles, confidence: float
) -> Drawn:
    """Mean OOD accuracy (percent) after against before, and ranks, with a marker per model.

    Args:
        ranks: columns method, model, ood_before, before_low, before_high, ood_after, after_low, after_high, rank_before,
            rank_after (NaN for models that are not ranked), tau, tau_p.
    """
    shown = ranks[(ranks["method"] == method) & ranks["model"].isin(list(models))].reset_index(
        drop=True
    )
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.2, max(3.4, 1.2 + 0.16 * len(shown))), width_ratios=(3, 2)
    )
    _draw_accuracies(left, shown, models)
    _draw_ranks(right, shown, models)
    correlation = f"Kendall's tau of before and after {_tau_text(*shown.loc[0, ['tau', 'tau_p']])}"
    whiskers = f"whiskers: {confidence:.0%} confidence intervals; ranks are of the values drawn, without a test"
    figure.supxlabel(f"{correlation}\n{whiskers}", fontsize=7)
    figure.suptitle(method_label, fontsize=9)
    return figure, shown


def _tau_text(tau: float, p: float) -> str:
    """Kendall's tau with its p; what it needs, if it is missing."""
    if np.isnan(tau):
        return "needs five ranked models"
    signed = f"{tau:+.2f}".replace("-", "\N{MINUS SIGN}")
    return f"{signed} (p = {p:.2g} if the orders were unrelated)"


def _draw_accuracies(axes: Axes, shown: pd.DataFrame, models: Styles) -> None:
    for row in shown.to_dict("records"):
        x, y, colour = row["ood_before"], row["ood_after"], models[row["model"]]["colour"]
        axes.plot([row["before_low"], row["before_high"]], [y, y], color=colour, linewidth=0.9)
        axes.plot([x, x], [row["after_low"], row["after_high"]], color=colour, linewidth=0.9)
        axes.plot(x, y, models[row["model"]]["marker"], color=colour, markersize=5)
    columns = shown[["before_low", "before_high", "after_low", "after_high"]]
    ends = columns.min(axis=None) - 3, columns.max(axis=None) + 3
    axes.plot(
        ends, ends, color="#525252", linewidth=0.8, linestyle="--", zorder=1, label="unchanged"
    )
    axes.legend()
    axes.set(xlabel="Mean OOD accuracy before (%)", ylabel="Mean OOD accuracy after (%)")
    axes.set(xlim=ends, ylim=ends, aspect="equal", anchor="N")
    axes.grid(True, axis="both")


def _draw_ranks(axes: Axes, shown: pd.DataFrame, models: Styles) -> None:
    """Lines between ranks; equal ranks are drawn one below the other, models without a rank below all others."""
    sides = [shown["rank_before"], shown["rank_after"]]
    # Equal ranks in the order of the other side, so that lines cross only where the order changes.
    ordered = [
        side + other.fillna(0) / 1000 for side, other in zip(sides, sides[::-1], strict=True)
    ]
    places = [side.rank(method="first", na_option="bottom") for side in ordered]
    for model, ranked, *ends in zip(shown["model"], sides[1].notna(), *places, strict=True):
        look = {
            "marker": models[model]["marker"],
            "color": models[model]["colour"],
            "markersize": 5,
        }
        axes.plot([0, 1], ends, linestyle="-" if ranked else "", **look)
    before, after = (
        [f"{rank:g}" if rank == rank else "\N{EN DASH}" for rank in side] for side in sides
    )
    named = axes.twinx()
    axes.set_yticks(places[0], before)
    labels = (models[model]["label"] for model in shown["model"])
    named.set_yticks(
        places[1], [f"{rank}  {label}" for rank, label in zip(after, labels, strict=True)]
    )
    for each in (axes, named):
        each.set_ylim(len(shown) + 0.5, 0.5)
        each.tick_params(axis="y", length=0, labelsize=7)
        each.grid(False)
    axes.set(xlim=(-0.1, 1.1), ylabel="Rank (1 is best)")
    axes.set_xticks([0, 1], ["before", "after"])
