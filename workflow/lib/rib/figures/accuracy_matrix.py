"""Accuracy matrices, targets by datasets, one panel per model and method; the first row is the pretrained model."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from rib.base.rounding import whole_percent
from rib.config.run import PRETRAINED
from rib.figures import SHARED, Drawn, Labels, text_colour
from rib.figures._panels import run_panels


def draw(
    accuracy: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    targets: Labels,
    datasets: Labels,
    source_groups: Labels,
) -> Drawn:
    """Top-1 accuracy in percent, as colour and number, mean over seeds; empty for a target without runs.

    Args:
        accuracy: columns model, method, target, seed, dataset, accuracy.
        source_groups: source group by dataset; cells whose target and dataset share a group are marked.
    """
    shown = accuracy.groupby(["model", "method", "target", "dataset"], sort=False)[
        "accuracy"
    ].mean()
    rows = {"none": "pretrained", **targets}
    figure, panels = run_panels(
        shown, models, methods, panel=(2.7, 0.4 + 0.28 * len(rows)), margin=(1.3, 1.1)
    )
    for (model, method), axes in panels.items():
        states = {target: PRETRAINED if target == "none" else method for target in rows}
        grid = np.array(
            [[shown.get((model, states[t], t, d), np.nan) for d in datasets] for t in rows]
        )
        image = _panel(axes, grid, rows, datasets, source_groups)
        axes.set_title(f"{models[model]}, {methods[method]}", fontsize=8)
    figure.supylabel("fine-tuned on", fontsize=8)
    figure.supxlabel(
        f"evaluated on    (outlined: the target itself    {SHARED} shares its source images)",
        fontsize=8,
    )
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.8, aspect=40, pad=0.01)
    bar.set_label("top-1 accuracy (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure, shown.reset_index()


def _panel(
    axes: Axes, grid: np.ndarray, rows: Labels, datasets: Labels, groups: Labels
) -> AxesImage:
    image = axes.imshow(grid, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, target), (column, dataset) in itertools.product(enumerate(rows), enumerate(datasets)):
        value = grid[row, column]
        shares = target != dataset and target in groups and groups[target] == groups.get(dataset)
        text = f"{whole_percent(value)}{SHARED if shares else ''}" if value == value else ""
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=6.5,
            color=text_colour(image, value),
        )
        if target == dataset:
            axes.add_patch(
                Rectangle(
                    (column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="black", lw=1.4
                )
            )
    axes.set_xticks(
        range(len(datasets)), list(datasets.values()), rotation=40, ha="right", fontsize=7
    )
    axes.set_yticks(range(len(rows)), list(rows.values()), fontsize=7)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.axhline(0.5, color="black", linewidth=1.2)
    return image
