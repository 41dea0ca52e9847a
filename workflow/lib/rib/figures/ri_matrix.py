"""Matrix of RI: methods by targets, one panel per model, with mRI in the last column."""

import itertools
import textwrap
from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rib.analysis.fit import UNFINISHED
from rib.base.rounding import fit_percent, points
from rib.figures import CHANGES, SHARED, Drawn, Labels, text_colour


def draw(
    ri: pd.DataFrame,
    mri: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    targets: Labels,
    shared: Collection[str],
    confidence: float,
) -> Drawn:
    """RI of every method and target in percentage points, as colour and number, with its confidence interval and fit below;
    what has no number is empty.

    Args:
        ri: columns model, method, target, seed, ri, ci_low, ci_high, fit, unfinished; seeds are averaged.
        mri: columns model, method, mri, ci_low, ci_high, fit, unfinished.
        shared: targets that share source images with other datasets; their cells are marked.
    """
    shown = ri.groupby(["model", "method", "target"], sort=False)[
        ["ri", "ci_low", "ci_high", "fit", "unfinished"]
    ]
    shown = shown.mean().reset_index()
    limit = max(1.0, np.abs(shown["ri"]).max())
    columns = [*targets, "mRI"]
    cells = pd.concat([shown, mri.rename(columns={"mri": "ri"}).assign(target="mRI")])
    cells = cells.set_index(["model", "method", "target"])
    values = cells["ri"].to_dict()
    size = (1.6 + 0.95 * len(columns), 0.7 + len(models) * (0.55 + 0.58 * len(methods)))
    figure, panels = plt.subplots(len(models), 1, figsize=size, squeeze=False)
    for axes, (model, label) in zip(panels[:, 0], models.items(), strict=True):
        run = [
            name for name in methods if any((model, name, target) in values for target in columns)
        ]  # of this model
        grid = np.array(
            [[values.get((model, method, target), np.nan) for target in columns] for method in run]
        )
        image = axes.imshow(grid, cmap=CHANGES, vmin=-limit, vmax=limit, aspect="auto")
        for (row, method), (column, target) in itertools.product(
            enumerate(run), enumerate(columns)
        ):
            if (model, method, target) in values:
                _write_cell(
                    axes,
                    image,
                    row,
                    column,
                    cells.loc[(model, method, target)],
                    SHARED * (target in shared),
                )
        names = [textwrap.fill(name, 12, break_long_words=False) for name in targets.values()]
        axes.set_xticks(range(len(columns)), [*names, "mRI"])
        axes.set_yticks(range(len(run)), [methods[method] for method in run])
        axes.get_xticklabels()[-1].set_fontweight("bold")
        axes.tick_params(length=0, labelsize=7)
        axes.axvline(len(targets) - 0.5, color="black", linewidth=1.5)
        axes.grid(False)
        axes.set_title(label, loc="left")
    bar = figure.colorbar(image, ax=panels[:, 0], shrink=0.8, aspect=30)
    bar.set_label(
        f"RI (percentage points; {confidence:.0%} confidence interval and fit below)", fontsize=7
    )
    bar.ax.tick_params(labelsize=7)
    note = f" fine-tuned on    {SHARED} other datasets share its source images" if shared else ""
    figure.supxlabel(f"columns: target{note}", fontsize=7)
    return figure, shown


def _write_cell(axes, image, row: int, column: int, cell: pd.Series, mark: str) -> None:
    style = {"ha": "center", "va": "center", "color": text_colour(image, cell["ri"])}
    axes.text(
        column,
        row - 0.22,
        f"{points(cell['ri'])}{mark}{UNFINISHED * bool(cell['unfinished'])}",
        **style,
    )
    axes.text(
        column,
        row + 0.1,
        f"{points(cell['ci_low'])} to {points(cell['ci_high'])}",
        **style,
        fontsize=5.5,
    )
    if fit := fit_percent(cell["fit"]):
        axes.text(column, row + 0.34, f"fit {fit}", **style, fontsize=5.5, alpha=0.75)
