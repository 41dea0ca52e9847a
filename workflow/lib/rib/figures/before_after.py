"""The paper's bar chart: mean out-of-distribution accuracy before and after fine-tuning, per model."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rib.base.rounding import percent
from rib.figures import Drawn, Labels, counted

# Light and dark shades of one hue, distinguishable in greyscale by lightness and hatching.
BARS = {
    "before": {"color": "#9ecae1", "hatch": "///", "label": "before (pretrained)"},
    "after": {"color": "#08519c", "hatch": None, "label": "after {method}"},
}
EDGES = {
    "edgecolor": "#08306b",
    "linewidth": 0.6,
    "error_kw": {"ecolor": "#252525", "elinewidth": 1},
}
WIDTH = 0.38
PAPER = {
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
        paper: the paper's accuracies before and after (percent), by model; if any, the rows shown have them too.

    Source: arXiv 2410.21582, bar figure of the average OOD accuracy per pretraining source.
    """
    shown = ood[(ood["method"] == method) & ood["model"].isin(list(models))]
    shown = shown.assign(
        paper=[paper.get(row.model, {}).get(row.when, np.nan) for row in shown.itertuples()]
    )
    figure, axes = plt.subplots(figsize=(max(4.6, 0.5 + 1.05 * len(models)), 3.4))
    for side, (when, style) in zip((-1, 1), BARS.items(), strict=True):
        rows = shown[shown["when"] == when].set_index("model").loc[list(models)]
        places = np.arange(len(models)) + side * WIDTH / 2
        whiskers = [rows["accuracy"] - rows["ci_low"], rows["ci_high"] - rows["accuracy"]]
        style = {**style, "label": style["label"].format(method=method_label)}
        axes.bar(places, rows["accuracy"], WIDTH * 0.95, yerr=whiskers, **EDGES, **style)
        for place, value, top in zip(places, rows["accuracy"], rows["ci_high"], strict=True):
            axes.annotate(
                percent(value),
                (place, top),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        if paper:  # next to the bars, without covering whiskers and numbers
            axes.plot(
                places + side * 0.68 * WIDTH,
                rows["paper"],
                label=PAPER_LABEL if side > 0 else None,
                **PAPER,
            )
    names, fontsize = list(models.values()), None
    if len(models) > 3:
        names, fontsize = [textwrap.fill(name, 12, break_on_hyphens=False) for name in names], 8
    axes.set_xticks(np.arange(len(models)), names, fontsize=fontsize)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("Mean OOD accuracy (%)")
    means = f"Mean over {counted(targets, 'target')} of the other {counted(datasets - 1, 'OOD dataset')}"
    axes.set_xlabel(f"{means}; whiskers: {confidence:.0%} confidence intervals", fontsize=7)
    axes.set_ylim(0, 1.25 * shown[["ci_high", "paper"]].max().max())
    handles = sorted(
        zip(*axes.get_legend_handles_labels(), strict=True),
        key=lambda entry: entry[1] == PAPER_LABEL,
    )
    axes.legend(*zip(*handles, strict=True), loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.1))
    return figure, (shown if paper else shown.drop(columns="paper")).reset_index(drop=True)
