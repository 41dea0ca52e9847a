"""Draws the figures `distance_drop` and `distance_matrix`."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rib.analyses.distances.association import matrix_of, to_targets
from rib.base.appearance import BLACK, BLUE, DARK_GREY, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION
from rib.figures import Drawn, Labels, text_colour

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


def draw_distance_drop(
    distances: pd.DataFrame,
    association: pd.DataFrame,
    ri: pd.DataFrame,
    *,
    models: Labels,
    targets: Labels,
    example: Mapping[str, str],
    kinds: Labels,
    ood_datasets: Sequence[str],
    in_distribution: str | None,
    in_distribution_label: str | None,
    confidence: float,
) -> Drawn:
    """Draw RI (mean change of accuracy) of each target against the target's distance.

    Panels are models by kinds of distance, with correlations above. Whiskers are intervals of RI.

    Args:
        distances: columns model, first, second, distance, value.
        association: columns model, method, distance, level, statistic, value, p.
        ri: columns model, method, target, seed, ri, ci_low, ci_high; seeds are averaged.
        models, targets: labels, {"net": "Net"}.
        example: the drawn method: {"method": "ft", "method_label": "FT"}.
        kinds: label of each kind of distance, which has a column of panels: {"ncd": "NCD"}.
        ood_datasets: datasets that count in RI.
        in_distribution, in_distribution_label: dataset to which distances are measured; None for
            the mean distance to the other datasets.
    """

    method = example["method"]
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
            distance_of_target = to_targets(
                distances[is_shown_here], list(targets), ood_datasets, in_distribution
            )
            points = _points(distance_of_target, ri_of_model)
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
    if in_distribution:
        distance = f"distance to {in_distribution_label}"
    figure.supxlabel(
        f"horizontal axis: {distance}; whiskers: {confidence:.0%} confidence intervals of RI",
        fontsize=7,
    )
    return figure, pd.concat(points_of_panels, ignore_index=True)[COLUMNS]


def _points(distance_of_target: Mapping[str, float], ri: pd.DataFrame) -> pd.DataFrame:
    """Points to draw, means over seeds: target, value (its distance), ri, ci_low, ci_high.

    `distance_of_target` is such as {"noto": 0.3}.
    """
    mean_ri = ri.groupby("target")[["ri", "ci_low", "ci_high"]].mean()
    points = mean_ri.loc[list(distance_of_target)].rename_axis("target").reset_index()
    return points.assign(value=points["target"].map(distance_of_target))


def _draw_points(axes: Axes, points: pd.DataFrame, targets: Labels) -> None:
    """Draw RI with whiskers against distance; a target looks the same in all panels."""
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
    """Title of a panel: a line per statistic, such as `Pearson +0.512 (p = 0.23)`."""
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


def draw_distance_matrix(
    distances: pd.DataFrame, *, models: Labels, datasets: Labels, kinds: Labels
) -> Drawn:
    """Draw the distances between datasets, one matrix per model and kind of distance.

    Args:
        distances: columns model, first, second, distance, value, n.
        models, datasets: labels, {"noto": "Noto"}.
        kinds: label of each kind of distance, which has a column of panels: {"ncd": "NCD"}.
    """
    side = 0.34 * len(datasets)  # of a matrix, in inches
    size = (1.0 + len(kinds) * (side + 0.25), 1.0 + len(models) * (side + 0.35))
    figure, panels = plt.subplots(
        len(models), len(kinds), figsize=size, squeeze=False, sharex=True, sharey=True
    )
    for row_of_panels, (model, model_label) in zip(panels, models.items(), strict=True):
        for axes, (kind, kind_label) in zip(row_of_panels, kinds.items(), strict=True):
            is_shown_here = (distances["model"] == model) & (distances["distance"] == kind)
            shown_here = distances[is_shown_here]
            _draw_distances(axes, _lower_triangle(shown_here, datasets))
            axes.set_title(f"{kind_label}, n = {shown_here['n'].iloc[0]}", fontsize=8)
            _name_datasets(axes, list(datasets.values()))
        row_of_panels[0].set_ylabel(model_label, fontsize=9)
    figure.supxlabel(
        "darker: larger distance (range per panel); n: images of each dataset", fontsize=7
    )
    return figure, distances[distances["model"].isin(list(models))]


def _lower_triangle(distances: pd.DataFrame, datasets: Labels) -> np.ndarray:
    """Symmetric distances (datasets, datasets), each once: NaN on and above the diagonal."""

    names = list(datasets)
    matrix = matrix_of(distances).reindex(index=names, columns=names)
    is_below_diagonal = np.tri(len(names), k=-1)
    return np.where(is_below_diagonal, matrix, np.nan)


def _draw_distances(axes: Axes, matrix: np.ndarray) -> None:
    """Colour the cells of a matrix by distance and write the numbers; NaN stays empty."""

    image = axes.imshow(matrix, cmap="Blues", aspect="equal")
    decimals = _decimals(matrix)
    for row, column in np.argwhere(~np.isnan(matrix)):
        distance = matrix[row, column]
        axes.text(
            column,
            row,
            f"{distance:.{decimals}f}",
            ha="center",
            va="center",
            fontsize=5.5,
            color=text_colour(image, distance),
        )


def _decimals(matrix: np.ndarray) -> int:
    """Decimals to write, 0 to 3, enough to distinguish the values: 2 for 0.3 to 5.1."""
    spread = np.nanmax(matrix) - np.nanmin(matrix)
    if np.isnan(spread) or spread == 0:
        return 1
    return int(np.clip(2 - np.floor(np.log10(spread)), 0, 3))


def _name_datasets(axes: Axes, labels: list[str]) -> None:
    """Write the datasets' names beside the matrix.

    The first row and the last column of a lower triangle are empty.
    """
    axes.set_xticks(range(len(labels) - 1), labels[:-1], rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(1, len(labels)), labels[1:], fontsize=7)
    axes.set(xlim=(-0.5, len(labels) - 1.5), ylim=(len(labels) - 0.5, 0.5))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
