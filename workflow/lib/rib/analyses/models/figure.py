"""Draws the figure `models`."""

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from rib.base.appearance import DARK_GREY
from rib.figures import Drawn, Styles

MARGIN = 3  # of the accuracy axes, in percentage points
NO_RANK = "\N{EN DASH}"


def draw_models(
    ranks: pd.DataFrame, *, method: str, method_label: str, models: Styles, confidence: float
) -> Drawn:
    """Draw whether models that start best end best: accuracy after against before, and ranks.

    Accuracy is the mean on other out-of-distribution (OOD) datasets, in percent.

    Args:
        ranks: columns method, model, ood_before, before_low, before_high, ood_after, after_low,
            after_high, rank_before, rank_after (NaN for models without rank), tau, tau_p.
        models: {"net": {"label": "Net", "colour": "#ff0000", "marker": "o"}}.
    """
    is_shown = (ranks["method"] == method) & ranks["model"].isin(list(models))
    shown_rows = ranks[is_shown].reset_index(drop=True)
    height = max(3.4, 1.2 + 0.16 * len(shown_rows))
    figure, (accuracy_axes, rank_axes) = plt.subplots(
        1, 2, figsize=(7.2, height), width_ratios=(3, 2)
    )
    _draw_accuracies(accuracy_axes, shown_rows, models)
    _draw_ranks(rank_axes, shown_rows, models)
    tau = _tau_text(shown_rows["tau"].iloc[0], shown_rows["tau_p"].iloc[0])
    figure.supxlabel(
        f"Kendall's tau of before and after {tau}\n"
        f"whiskers: {confidence:.0%} confidence intervals; "
        "ranks are of the values drawn, without a test",
        fontsize=7,
    )
    figure.suptitle(method_label, fontsize=9)
    return figure, shown_rows


def _tau_text(tau: float, p: float) -> str:
    """Kendall's tau in the note: `+0.60 (p = 0.02 if the orders were unrelated)`."""
    if math.isnan(tau):
        return "needs five ranked models"
    signed = f"{tau:+.2f}".replace("-", "\N{MINUS SIGN}")
    return f"{signed} (p = {p:.2g} if the orders were unrelated)"


def _draw_accuracies(axes: Axes, shown_rows: pd.DataFrame, models: Styles) -> None:
    """Draw accuracy after against before, whiskers in both directions, and the diagonal."""
    for row in shown_rows.to_dict("records"):
        style = models[row["model"]]
        colour = style["colour"]
        x = row["ood_before"]
        y = row["ood_after"]
        axes.plot([row["before_low"], row["before_high"]], [y, y], color=colour, linewidth=0.9)
        axes.plot([x, x], [row["after_low"], row["after_high"]], color=colour, linewidth=0.9)
        axes.plot(x, y, style["marker"], color=colour, markersize=5)
    limits = shown_rows[["before_low", "before_high", "after_low", "after_high"]]
    ends = (limits.min().min() - MARGIN, limits.max().max() + MARGIN)
    axes.plot(
        ends, ends, color=DARK_GREY, linewidth=0.8, linestyle="--", zorder=1, label="unchanged"
    )
    axes.legend()
    axes.set(xlabel="Mean OOD accuracy before (%)", ylabel="Mean OOD accuracy after (%)")
    axes.set(xlim=ends, ylim=ends, aspect="equal", anchor="N")
    axes.grid(True, axis="both")


def _draw_ranks(axes: Axes, shown_rows: pd.DataFrame, models: Styles) -> None:
    """Draw lines from ranks before to ranks after.

    Equal ranks stand one below the other, models without rank below all others.
    """
    rank_before = shown_rows["rank_before"]
    rank_after = shown_rows["rank_after"]
    place_before = _places(rank_before, rank_after)
    place_after = _places(rank_after, rank_before)
    for i, model in enumerate(shown_rows["model"]):
        is_ranked = not math.isnan(rank_after[i])
        axes.plot(
            [0, 1],
            [place_before[i], place_after[i]],
            linestyle="-" if is_ranked else "",
            marker=models[model]["marker"],
            color=models[model]["colour"],
            markersize=5,
        )
    axes_after = axes.twinx()
    names_after = []
    for rank, model in zip(_rank_texts(rank_after), shown_rows["model"], strict=True):
        names_after.append(f"{rank}  {models[model]['label']}")
    axes.set_yticks(place_before, _rank_texts(rank_before))
    axes_after.set_yticks(place_after, names_after)
    for side in (axes, axes_after):
        side.set_ylim(len(shown_rows) + 0.5, 0.5)
        side.tick_params(axis="y", length=0, labelsize=7)
        side.grid(False)
    axes.set(xlim=(-0.1, 1.1), ylabel="Rank (1 is best)")
    axes.set_xticks([0, 1], ["before", "after"])


def _places(ranks: pd.Series, other_ranks: pd.Series) -> pd.Series:
    """Places from the top; ties follow the other side, so lines cross only if the order changes.

    Ranks [1, 2, 2] with other ranks [3, 2, 1] have the places [1, 3, 2].
    """
    # Ranks differ by at least 1, and there are fewer than 1000 models.
    untied = ranks + other_ranks.fillna(0) / 1000
    return untied.rank(method="first", na_option="bottom")


def _rank_texts(ranks: pd.Series) -> list[str]:
    """Labels of places: ["1", "2.5"], with a dash for a model without rank."""
    return [NO_RANK if math.isnan(rank) else f"{rank:g}" for rank in ranks]
