"""The paper's bar chart: mean out-of-distribution accuracy before and after, per model."""

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

# Light and dark shades of one hue, distinguishable in greyscale by lightness and hatching.
BARS: dict[str, dict[str, Any]] = {
    "before": {"color": LIGHT_BLUE, "hatch": "///", "label": f"before ({PRETRAINED_LABEL})"},
    "after": {"color": DARK_BLUE, "hatch": None, "label": "after {method}"},
}
SIDES = {"before": -1, "after": 1}  # of a model's place, on which its bars are
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


def draw(
    ood: pd.DataFrame,
    *,
    method: str,
    method_label: str,
    models: Labels,
    datasets: int,
    targets: int,
    confidence: float,
    paper: Mapping[str, Mapping[str, float]],
) -> Drawn:
    """Bars of mean OOD accuracy (percent) with confidence intervals, one pair per model.

    Args:
        ood: columns model, method, when, accuracy, ci_low, ci_high.
        datasets: number of datasets of the family.
        targets: number of targets averaged over.
        paper: the paper's accuracies before and after (percent), by model; if any, the rows shown
            have them too.

    Source: arXiv 2410.21582, bar figure of the average OOD accuracy per pretraining source.
    """
    shown_rows = ood[(ood["method"] == method) & ood["model"].isin(list(models))]
    in_paper = []
    for row in shown_rows.to_dict("records"):
        paper_accuracies = paper.get(row["model"], {})
        in_paper.append(paper_accuracies.get(row["when"], np.nan))
    shown_rows = shown_rows.assign(paper=in_paper)
    figure, axes = plt.subplots(figsize=(max(4.6, 0.5 + 1.05 * len(models)), 3.4))
    for when, style in BARS.items():
        rows = shown_rows[shown_rows["when"] == when].set_index("model").loc[list(models)]
        label = style["label"].format(method=method_label)
        _draw_bars(axes, rows, SIDES[when], {**style, "label": label})
        if paper:
            _draw_paper(axes, rows["paper"], SIDES[when])
    _name_models(axes, list(models.values()))
    axes.set_ylabel("Mean OOD accuracy (%)")
    other_datasets = counted(datasets - 1, "OOD dataset")
    axes.set_xlabel(
        f"Mean over {counted(targets, 'target')} of the other {other_datasets}; "
        f"whiskers: {confidence:.0%} confidence intervals",
        fontsize=7,
    )
    axes.set_ylim(0, 1.25 * shown_rows[["ci_high", "paper"]].max().max())
    _add_legend(axes)
    if not paper:
        shown_rows = shown_rows.drop(columns="paper")
    return figure, shown_rows.reset_index(drop=True)


def _draw_bars(axes: Axes, rows: pd.DataFrame, side: int, style: Style) -> None:
    """Draw a bar per model with its interval and number.

    Args:
        rows: accuracy, ci_low, ci_high of each model.
        side: left (-1) or right (1) of the model's place.
    """
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
    """Draw the paper's accuracies next to the bars, without covering whiskers and numbers."""
    x = np.arange(len(accuracies)) + side * WIDTH / 2
    label = PAPER_LABEL if side > 0 else None
    axes.plot(x + side * 0.68 * WIDTH, accuracies, label=label, **PAPER)


def _name_models(axes: Axes, labels: Sequence[str]) -> None:
    """Label the horizontal axis; many labels are small and broken into lines."""
    fontsize = None
    if len(labels) > 3:
        labels = [textwrap.fill(label, 12, break_on_hyphens=False) for label in labels]
        fontsize = 8
    axes.set_xticks(np.arange(len(labels)), labels, fontsize=fontsize)
    axes.tick_params(axis="x", length=0)


def _add_legend(axes: Axes) -> None:
    """Add the legend, with the paper's accuracies last."""
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
