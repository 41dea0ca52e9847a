"""RI of every target against its distance, one panel per model and kind of distance."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rib.analyses.distances.association import to_targets
from rib.analyses.distances.settings import MeasuredDistances
from rib.base.appearance import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILION,
)
from rib.base.settings import from_params
from rib.figures import Drawn, Labels

# Without yellow, which is too light for thin lines.
COLOURS = [BLUE, VERMILION, GREEN, PURPLE, SKY_BLUE, ORANGE, BLACK]
MARKERS = "osD^vP*X<>"
EDGES: dict[str, Any] = {
    "markeredgecolor": "black",
    "markeredgewidth": 0.4,
    "elinewidth": 1,
    "capsize": 2,
}
COLUMNS = ["model", "distance", "target", "value", "ri", "ci_low", "ci_high"]


def draw(
    distances: pd.DataFrame,
    association: pd.DataFrame,
    ri: pd.DataFrame,
    *,
    models: Labels,
    targets: Labels,
    example: Mapping[str, str],
    measured: Mapping[str, Any],
    confidence: float,
) -> Drawn:
    """One point per target with the confidence interval of its RI.

    Correlations and their p are above each panel.

    Args:
        distances: columns model, first, second, distance, value.
        association: columns model, method, distance, level, statistic, value, p.
        ri: columns model, method, target, seed, ri, ci_low, ci_high; seeds are averaged.
        example: method and method_label.
        measured: fields of rib.analyses.distances.settings.MeasuredDistances.
    """
    method = example["method"]
    distances_shown = from_params(MeasuredDistances, measured)
    kinds = distances_shown.kinds
    ri_of_method = ri[ri["method"] == method]
    size = (0.6 + 2.0 * len(kinds), 1.1 + 2.0 * len(models))
    figure, panels = plt.subplots(
        len(models), len(kinds), figsize=size, squeeze=False, sharex="col", sharey="row"
    )
    points_of_panels = []
    for row_of_panels, (model, model_label) in zip(panels, models.items(), strict=True):
        ri_of_model = ri_of_method[ri_of_method["model"] == model]
        for axes, kind in zip(row_of_panels, kinds, strict=True):
            is_shown_here = (distances["model"] == model) & (distances["distance"] == kind)
            points = _points(distances[is_shown_here], ri_of_model, list(targets), distances_shown)
            _draw_points(axes, points, targets)
            axes.set_title(_correlations(association, model, method, kind), fontsize=7)
            points_of_panels.append(points.assign(model=model, distance=kind))
        row_of_panels[0].set_ylabel(f"{model_label}\nRI (percentage points)", fontsize=8)
    for axes, kind_label in zip(panels[-1], kinds.values(), strict=True):
        axes.set_xlabel(kind_label, fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(len(targets), 5),
        title=f"target of {example['method_label']}",
    )
    distance = "mean distance to the other datasets"
    if distances_shown.in_distribution:
        distance = f"distance to {distances_shown.in_distribution_label}"
    figure.supxlabel(
        f"horizontal axis: {distance}; whiskers: {confidence:.0%} confidence intervals of RI",
        fontsize=7,
    )
    return figure, pd.concat(points_of_panels, ignore_index=True)[COLUMNS]


def _points(
    distances: pd.DataFrame, ri: pd.DataFrame, targets: list[str], shown: MeasuredDistances
) -> pd.DataFrame:
    """The points of a panel, a row per target: target, value (its distance), ri, ci_low, ci_high.

    Args:
        distances: first, second, value; of one model and kind of distance.
        ri: target, seed, ri, ci_low, ci_high of one model and method; seeds are averaged.
    """
    distance_of_target = to_targets(distances, targets, shown.ood_datasets, shown.in_distribution)
    mean_ri = ri.groupby("target")[["ri", "ci_low", "ci_high"]].mean()
    points = mean_ri.loc[targets].rename_axis("target").reset_index()
    return points.assign(value=points["target"].map(distance_of_target))


def _draw_points(axes: Axes, points: pd.DataFrame, targets: Labels) -> None:
    """Draw a point with its interval for each target, and the line of no change.

    Args:
        points: target, value (distance), ri, ci_low, ci_high.
    """
    axes.axhline(0, color=DARK_GREY, linewidth=0.8)
    for i, point in enumerate(points.to_dict("records")):
        whiskers = [[point["ri"] - point["ci_low"]], [point["ci_high"] - point["ri"]]]
        axes.errorbar(
            point["value"],
            point["ri"],
            whiskers,
            linestyle="none",
            label=targets[point["target"]],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            **EDGES,
        )
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=7)


def _correlations(association: pd.DataFrame, model: str, method: str, kind: str) -> str:
    """Correlations of targets' distances and RI, a line for each statistic.

    Args:
        association: columns model, method, distance, level, statistic, value, p.
        kind: of distance.
    """
    correlations = association[
        (association["model"] == model)
        & (association["method"] == method)
        & (association["distance"] == kind)
        & (association["level"] == "targets")
    ]
    if correlations["value"].isna().any():
        return "too few or equal points"
    lines = []
    for row in correlations.to_dict("records"):
        lines.append(f"{row['statistic'].title()} {row['value']:+.3f} (p = {row['p']:.2g})")
    return "\n".join(lines).replace("-", "\N{MINUS SIGN}")
