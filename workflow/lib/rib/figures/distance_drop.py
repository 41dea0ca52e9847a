"""RI of every target against its distance, one panel per model and kind of distance."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from rib.analysis.association import to_targets
from rib.figures import Drawn, Labels

# Colours of Okabe & Ito 2008 without yellow, which is too light for thin lines.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = "osD^vP*X<>"
EDGES = {"markeredgecolor": "black", "markeredgewidth": 0.4, "elinewidth": 1, "capsize": 2}


def draw(
    distances: pd.DataFrame,
    association: pd.DataFrame,
    ri: pd.DataFrame,
    *,
    models: Labels,
    method: str,
    method_label: str,
    targets: Labels,
    ood_datasets: Sequence[str],
    in_distribution: str | None,
    in_distribution_label: str | None,
    kinds: Labels,
    confidence: float,
) -> Drawn:
    """One point per target with the confidence interval of its RI; correlations and p above each panel.

    Args:
        distances: columns model, first, second, distance, value.
        association: columns model, method, distance, level, statistic, value, p.
        ri: columns model, method, target, seed, ri, ci_low, ci_high; seeds are averaged.
        in_distribution: dataset to which distances are measured; None for the mean distance to the others.
        kinds: label of each kind of distance, one column of panels each.
    """
    size = (0.6 + 2.0 * len(kinds), 1.1 + 2.0 * len(models))
    figure, panels = plt.subplots(
        len(models), len(kinds), figsize=size, squeeze=False, sharex="col", sharey="row"
    )
    means = (
        ri[ri["method"] == method].groupby(["model", "target"])[["ri", "ci_low", "ci_high"]].mean()
    )
    lines = []
    for row, (model, label) in zip(panels, models.items(), strict=True):
        for axes, kind in zip(row, kinds, strict=True):
            part = distances[(distances["model"] == model) & (distances["distance"] == kind)]
            apart = to_targets(part, list(targets), ood_datasets, in_distribution)
            points = [
                (model, kind, name, apart[name], *means.loc[(model, name)]) for name in targets
            ]
            _points(axes, points, targets)
            axes.set_title(_correlations(association, model, method, kind), fontsize=7)
            lines += points
        row[0].set_ylabel(f"{label}\nRI (percentage points)", fontsize=8)
    for axes, kind in zip(panels[-1], kinds.values(), strict=True):
        axes.set_xlabel(kind, fontsize=8)
    look = {"ncols": min(len(targets), 5), "title": f"target of {method_label}"}
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", **look)
    to = (
        f"distance to {in_distribution_label}"
        if in_distribution
        else "mean distance to the other datasets"
    )
    figure.supxlabel(
        f"horizontal axis: {to}; whiskers: {confidence:.0%} confidence intervals of RI", fontsize=7
    )
    return figure, pd.DataFrame(
        lines, columns=["model", "distance", "target", "value", "ri", "ci_low", "ci_high"]
    )


def _points(axes, points: Sequence[tuple], targets: Labels) -> None:
    axes.axhline(0, color="#525252", linewidth=0.8)
    for place, (*_, name, apart, value, low, high) in enumerate(points):
        look = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 5,
        }
        whiskers = [[value - low], [high - value]]
        axes.errorbar(
            apart, value, whiskers, linestyle="none", label=targets[name], **look, **EDGES
        )
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=7)


def _correlations(association: pd.DataFrame, model: str, method: str, kind: str) -> str:
    keys = {"model": model, "method": method, "distance": kind, "level": "targets"}
    lines = association[(association[list(keys)] == pd.Series(keys)).all(axis=1)].set_index(
        "statistic"
    )
    if lines["value"].isna().any():
        return "too few or equal points"
    parts = [
        f"{name.title()} {line['value']:+.3f} (p = {line['p']:.2g})"
        for name, line in lines.iterrows()
    ]
    return "\n".join(parts).replace("-", "\N{MINUS SIGN}")
