"""Draws the figure `before_after`."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.base.appearance import DARK_BLUE, DARKEST_BLUE, INK, LIGHT_BLUE, PRETRAINED_LABEL
from rib.base.rounding import percent
from rib.figures import Drawn, Labels, Style, counted

# Light and dark shades of one hue; in greyscale, lightness and hatching distinguish them.
BARS: dict[str, dict[str, Any]] = {
    "before": {"color": LIGHT_BLUE, "hatch": "///", "label": f"before ({PRETRAINED_LABEL})"},
    "after": {"color": DARK_BLUE, "hatch": None, "label": "after {method}"},
}
SIDES = {"before": -1, "after": 1}  # of a model's place on the axis
EDGES: dict[str, Any] = {
    "edgecolor": DARKEST_BLUE,
    "linewidth": 0.6,
    "error_kw": {"ecolor": INK, "elinewidth": 1},
}
WIDTH = 0.38
PAPER: dict[str, Any] = {
    "marker": "D",
    "markersize": 4.5,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
}
PAPER_LABEL = "paper (read off its figure)"


def draw_before_after(
    ood: pd.DataFrame,
    *,
    method: str,
    method_label: str,
    models: Labels,
    number_of_datasets: int,
    number_of_targets: int,
    confidence: float,
    paper: Mapping[str, Mapping[str, float]],
) -> Drawn:
    """Draw mean accuracy on other datasets before and after fine-tuning, bars of each model.

    The mean, in percent, is over targets and, for each target, over the other out-of-distribution
    (OOD) datasets.

    Args:
        ood: columns model, method, when (`before` or `after` fine-tuning), accuracy, ci_low,
            ci_high; a row for each model, method and time.
        method: the method with which models are fine-tuned.
        models: labels, {"net": "Net"}.
        number_of_datasets: out-of-distribution datasets of the family.
        number_of_targets: targets per model.
        confidence: coverage of the intervals, such as 0.95.
        paper: the paper's accuracies in percent: {"net": {"before": 70.1, "after": 68.2}}; models
            may be missing.

    Returns:
        The figure and its rows, with a column `paper` unless `paper` is empty.

    Source: arXiv 2410.21582, bar figure of the average OOD accuracy per pretraining source.
    """

    shown_rows = ood[(ood["method"] == method) & ood["model"].isin(list(models))]
    if paper:
        shown_rows = shown_rows.assign(paper=_paper_accuracies(shown_rows, paper))
    figure, axes = plt.subplots(figsize=(max(4.6, 0.5 + 1.05 * len(models)), 3.4))
    for when, style in BARS.items():
        rows = shown_rows[shown_rows["when"] == when].set_index("model").loc[list(models)]
        label = style["label"].format(method=method_label)
        _draw_bars(axes, rows, SIDES[when], {**style, "label": label})
        if paper:
            _draw_paper(axes, rows["paper"], SIDES[when])
    _name_models(axes, list(models.values()))
    axes.set_ylabel("Mean OOD accuracy (%)")
    other_datasets = counted(number_of_datasets - 1, "OOD dataset")
    axes.set_xlabel(
        f"Mean over {counted(number_of_targets, 'target')} of the other {other_datasets}; "
        f"whiskers: {confidence:.0%} confidence intervals",
        fontsize=7,
    )
    columns_to_show = ["ci_high", "paper"] if paper else ["ci_high"]
    axes.set_ylim(0, 1.25 * shown_rows[columns_to_show].max().max())  # leaves room for the legend
    _add_legend(axes)
    return figure, shown_rows.reset_index(drop=True)


def _paper_accuracies(rows: pd.DataFrame, paper: Mapping[str, Mapping[str, float]]) -> list[float]:
    """[70.1, 68.2] for {"net": {"before": 70.1, "after": 68.2}} and rows of both times.

    NaN where the paper has no accuracy.
    """
    accuracies = []
    for row in rows.to_dict("records"):
        accuracies_of_model = paper.get(row["model"], {})
        accuracies.append(accuracies_of_model.get(row["when"], math.nan))
    return accuracies


def _draw_bars(axes: Axes, rows: pd.DataFrame, side: int, style: Style) -> None:
    """Draw a bar with whiskers for each model; `side` is -1 for left of its place, 1 for right."""
    x = np.arange(len(rows)) + side * WIDTH / 2
    accuracies = rows["accuracy"]
    whiskers = [accuracies - rows["ci_low"], rows["ci_high"] - accuracies]
    axes.bar(x, accuracies, WIDTH * 0.95, yerr=whiskers, **EDGES, **style)
    for x_of_bar, accuracy, top in zip(x, accuracies, rows["ci_high"], strict=True):
        axes.annotate(
            percent(accuracy),
            (x_of_bar, top),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )


def _draw_paper(axes: Axes, accuracies: pd.Series, side: int) -> None:
    """Draw the paper's accuracies as diamonds.

    They stand beside the bars so that whiskers and numbers remain visible.
    """
    x = np.arange(len(accuracies)) + side * WIDTH / 2
    label = PAPER_LABEL if side > 0 else None
    axes.plot(x + side * 0.68 * WIDTH, accuracies, label=label, **PAPER)


def _name_models(axes: Axes, labels: Sequence[str]) -> None:
    """Name the models below their bars; more than three labels are small, in several lines."""
    fontsize = None
    if len(labels) > 3:
        labels = [textwrap.fill(label, 12, break_on_hyphens=False) for label in labels]
        fontsize = 8
    axes.set_xticks(range(len(labels)), labels, fontsize=fontsize)
    axes.tick_params(axis="x", length=0)


def _add_legend(axes: Axes) -> None:
    """Add the legend above the bars, with the paper's accuracies last."""
    handles, labels = axes.get_legend_handles_labels()
    handle_of_label = dict(zip(labels, handles, strict=True))
    shown_labels = [label for label in labels if label != PAPER_LABEL]
    if PAPER_LABEL in labels:
        shown_labels.append(PAPER_LABEL)
    axes.legend(
        [handle_of_label[label] for label in shown_labels],
        shown_labels,
        loc="upper center",
        ncols=3,
        bbox_to_anchor=(0.5, 1.1),
    )
