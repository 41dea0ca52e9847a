"""Matrix of RI: methods by targets, one panel per model, with mRI in the last column."""

from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rib.figures import CHANGES, text_colour

MARK = "†"


def draw(
    ri: pd.DataFrame,
    mri: pd.DataFrame,
    *,
    models: Mapping[str, str],
    methods: Mapping[str, str],
    targets: Mapping[str, str],
    shared: Collection[str],
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """RI of every method and target in percentage points, as colour and number, with its confidence interval below.

    Args:
        ri: columns model, method, target, seed, ri, ci_low, ci_high; seeds are averaged.
        mri: columns model, method, mri, ci_low, ci_high.
        shared: targets that share source images with other datasets; their cells are marked.
    """
    shown = ri.groupby(["model", "method", "target"], sort=False)[["ri", "ci_low", "ci_high"]].mean().reset_index()
    marked = [target in shared for target in targets] + [False]
    limit = max(1.0, np.abs(shown["ri"]).max())
    figure, panels = plt.subplots(
        len(models),
        1,
        figsize=(1.6 + 0.95 * (len(targets) + 1), 0.7 + len(models) * (0.55 + 0.5 * len(methods))),
        squeeze=False,
    )
    for axes, (model, label) in zip(panels[:, 0], models.items(), strict=True):
        cells = shown[shown["model"] == model].set_index(["method", "target"])
        means = mri[mri["model"] == model].set_index("method")
        run = [method for method in methods if method in means.index]  # some methods apply to one type of model only
        grid = np.array([[cells.loc[(m, t), "ri"] for t in targets] + [means.loc[m, "mri"]] for m in run])
        image = axes.imshow(grid, cmap=CHANGES, vmin=-limit, vmax=limit, aspect="auto")
        _write_cells(axes, image, grid, [[cells.loc[(m, t)] for t in targets] + [means.loc[m]] for m in run], marked)
        axes.set_xticks(range(len(targets) + 1), [*targets.values(), "mRI"])
        axes.set_yticks(range(len(run)), [methods[method] for method in run])
        axes.get_xticklabels()[-1].set_fontweight("bold")
        axes.tick_params(length=0, labelsize=7)
        axes.axvline(len(targets) - 0.5, color="black", linewidth=1.5)
        axes.grid(False)
        axes.set_title(label, loc="left")
    bar = figure.colorbar(image, ax=panels[:, 0], shrink=0.8, aspect=30)
    bar.set_label(f"RI (percentage points; {confidence:.0%} confidence interval below)", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    bar.ax.grid(False)
    note = (
        f"columns: target fine-tuned on    {MARK} other datasets share its source images"
        if shared
        else "columns: target"
    )
    figure.supxlabel(note, fontsize=7)
    return figure, shown


def _write_cells(axes, image, grid: np.ndarray, lines: list[list[pd.Series]], marked: list[bool]) -> None:
    """Write value, mark and confidence interval into every cell."""
    for row, column in np.ndindex(grid.shape):
        value, line = grid[row, column], lines[row][column]
        colour = text_colour(image, value)
        text = f"{value:+.1f}{MARK if marked[column] else ''}"
        axes.text(column, row - 0.12, text, ha="center", va="center", color=colour)
        interval = f"{line['ci_low']:+.1f} to {line['ci_high']:+.1f}"
        axes.text(column, row + 0.26, interval, ha="center", va="center", color=colour, fontsize=5.5)
