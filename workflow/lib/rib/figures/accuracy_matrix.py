"""Accuracy matrices, targets by datasets, one panel per model and method; the first row is the pretrained model."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from rib.config.run import PRETRAINED
from rib.figures import panel_lines, text_colour

MARK = "†"
WIDEST = 4  # maximum number of panel columns


def draw(
    accuracy: pd.DataFrame,
    *,
    models: Mapping[str, str],
    methods: Mapping[str, str],
    targets: Mapping[str, str],
    datasets: Mapping[str, str],
    source_groups: Mapping[str, str],
) -> tuple[Figure, pd.DataFrame]:
    """Top-1 accuracy in percent, as colour and number, mean over seeds.

    Args:
        accuracy: columns model, method, target, seed, dataset, accuracy.
        source_groups: source group by dataset; cells whose target and dataset share a group are marked.
    """
    shown = accuracy.groupby(["model", "method", "target", "dataset"], sort=False)["accuracy"].mean()
    scored = set(shown.index.droplevel(["target", "dataset"]))
    runs = [(model, method) for model in models for method in methods if (model, method) in scored]
    columns = min(WIDEST, len(methods))
    lines = [line for model in models for line in panel_lines([run for run in runs if run[0] == model], columns)]
    rows = {"none": "pretrained", **targets}
    figure, panels = plt.subplots(
        len(lines),
        columns,
        figsize=(1.3 + 2.7 * columns, 1.1 + len(lines) * (0.4 + 0.28 * len(rows))),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for axes, run in zip(panels.flat, (run for line in lines for run in line), strict=True):
        if run is None:
            axes.axis("off")
            continue
        model, method = run
        states = {target: PRETRAINED if target == "none" else method for target in rows}
        grid = np.array([[shown[model, states[t], t, d] for d in datasets] for t in rows])
        image = _panel(axes, grid, rows, datasets, source_groups)
        axes.set_title(f"{models[model]}, {methods[method]}", fontsize=8)
    for column, lowest in zip(panels.T, zip(*lines, strict=True), strict=True):
        drawn = [panel for panel, run in zip(column, lowest, strict=True) if run is not None]
        for panel in drawn[-1:]:
            panel.xaxis.set_tick_params(labelbottom=True)  # the panel below may be missing
    figure.supylabel("fine-tuned on", fontsize=8)
    figure.supxlabel(f"evaluated on    (outlined: the target itself    {MARK} shares its source images)", fontsize=8)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, aspect=40, pad=0.01)
    bar.set_label("top-1 accuracy (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.ax.grid(False)
    return figure, shown.reset_index()


def _panel(
    axes: Axes, grid: np.ndarray, rows: Mapping[str, str], datasets: Mapping[str, str], source_groups: Mapping[str, str]
) -> AxesImage:
    image = axes.imshow(grid, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    _write_cells(axes, image, grid, list(rows), list(datasets), source_groups)
    axes.set_xticks(range(len(datasets)), list(datasets.values()), rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), list(rows.values()), fontsize=7)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.axhline(0.5, color="black", linewidth=1.2)
    return image


def _write_cells(
    axes: Axes,
    image: AxesImage,
    grid: np.ndarray,
    rows: list[str],
    datasets: list[str],
    source_groups: Mapping[str, str],
) -> None:
    for row, target in enumerate(rows):
        for column, dataset in enumerate(datasets):
            shares = (
                target != dataset and target in source_groups and source_groups[target] == source_groups.get(dataset)
            )
            text = f"{grid[row, column]:.0f}{MARK if shares else ''}"
            colour = text_colour(image, grid[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
            if target == dataset:
                axes.add_patch(
                    Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="black", lw=1.4)
                )
