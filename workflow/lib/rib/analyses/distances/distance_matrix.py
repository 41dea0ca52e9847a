"""Heat maps of the distances between datasets, one panel per model and kind of distance."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.analyses.distances.association import matrix_of
from rib.figures import Drawn, Labels, text_colour


def draw(distances: pd.DataFrame, *, models: Labels, datasets: Labels, kinds: Labels) -> Drawn:
    """Distances as colour and number; each panel has its own colour range.

    Args:
        distances: columns model, first, second, distance, value, n.
        kinds: label of each kind of distance, one column of panels each.
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
    """Distances (datasets, datasets) of one model and kind, NaN on and above the diagonal."""
    names = list(datasets)
    matrix = matrix_of(distances).reindex(index=names, columns=names)
    is_below_diagonal = np.tri(len(names), k=-1)
    return np.where(is_below_diagonal, matrix, np.nan)


def _draw_distances(axes: Axes, grid: np.ndarray) -> None:
    """Draw distances (datasets, datasets) as colours and numbers; NaN is left empty."""
    image = axes.imshow(grid, cmap="Blues", aspect="equal")
    decimals = _decimals(grid)
    for row, column in np.argwhere(~np.isnan(grid)):
        distance = grid[row, column]
        axes.text(
            column,
            row,
            f"{distance:.{decimals}f}",
            ha="center",
            va="center",
            fontsize=5.5,
            color=text_colour(image, distance),
        )


def _decimals(grid: np.ndarray) -> int:
    """Decimals that are needed to distinguish the values, up to three."""
    spread = np.nanmax(grid) - np.nanmin(grid)
    if np.isnan(spread) or spread == 0:
        return 1
    return int(np.clip(2 - np.floor(np.log10(spread)), 0, 3))


def _name_datasets(axes: Axes, labels: list[str]) -> None:
    """Label the lower triangle: the first row and the last column are empty."""
    axes.set_xticks(range(len(labels) - 1), labels[:-1], rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(1, len(labels)), labels[1:], fontsize=7)
    axes.set(xlim=(-0.5, len(labels) - 1.5), ylim=(len(labels) - 0.5, 0.5))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
