"""Draws the figure `ri_matrix`."""

import textwrap
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from rib.base.appearance import MRI_LABEL, SHARED
from rib.base.rounding import fit_percent, points
from rib.figures import CHANGES, Drawn, Labels, ModelAndMethod, label_of_run, text_colour
from rib.statistics.fit import UNDERFITTED

# {(model, method, target or "mRI"): {"ri": ..., "ci_low", "ci_high", "fit", "underfitted"}}
Cells = dict[tuple[str, str, str], Mapping[Hashable, Any]]


def draw_ri_matrix(
    ri: pd.DataFrame,
    mri: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    targets: Labels,
    shared: Collection[str],
    confidence: float,
    underfitted: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Draw RI (mean change of accuracy, in points) by method and target, a panel per model.

    Confidence interval and fit (accuracy on training images) are below RI.

    Args:
        ri: columns model, method, target, seed, ri, ci_low, ci_high, fit, underfitted; seeds are
            averaged.
        mri: columns model, method, mri, ci_low, ci_high, fit, underfitted.
        models, methods, targets: labels, {"ft": "FT"}.
        shared: targets that share source images with other datasets, for marks.
        underfitted: pairs to mark, {("net", "ft")}: a run has a low fit.
    """

    runs = ri[ri["target"].isin(list(targets))].groupby(["model", "method", "target"], sort=False)
    shown_rows = runs[["ri", "ci_low", "ci_high", "fit", "underfitted"]].mean().reset_index()
    limit = max(1.0, np.abs(shown_rows["ri"]).max())
    columns = [*targets, MRI_LABEL]
    mri_rows = mri.rename(columns={"mri": "ri"}).assign(target=MRI_LABEL)
    cells: Cells = {}
    for numbers in pd.concat([shown_rows, mri_rows]).to_dict("records"):
        cells[numbers["model"], numbers["method"], numbers["target"]] = numbers
    size = (1.6 + 0.95 * len(columns), 0.7 + len(models) * (0.55 + 0.58 * len(methods)))
    figure, panels = plt.subplots(len(models), 1, figsize=size, squeeze=False)
    for axes, (model, model_label) in zip(panels[:, 0], models.items(), strict=True):
        methods_of_model = [
            method
            for method in methods
            if any((model, method, column) in cells for column in columns)
        ]
        numbers_of_model = _numbers(cells, model, methods_of_model, columns)
        image = axes.imshow(numbers_of_model, cmap=CHANGES, vmin=-limit, vmax=limit, aspect="auto")
        for row, method in enumerate(methods_of_model):
            for column, target in enumerate(columns):
                if (model, method, target) in cells:
                    cell = cells[model, method, target]
                    _write_cell(axes, image, row, column, cell, target in shared)
        _name_columns(axes, list(targets.values()))
        method_labels = [
            label_of_run(methods[method], (model, method), underfitted)
            for method in methods_of_model
        ]
        axes.set_yticks(range(len(methods_of_model)), method_labels)
        axes.tick_params(length=0, labelsize=7)
        axes.axvline(len(targets) - 0.5, color="black", linewidth=1.5)  # separates mRI
        axes.grid(False)
        axes.set_title(model_label, loc="left")
    bar = figure.colorbar(image, ax=panels[:, 0], shrink=0.8, aspect=30)
    bar.set_label(
        f"RI (percentage points; {confidence:.0%} confidence interval and fit below)", fontsize=7
    )
    bar.ax.tick_params(labelsize=7)
    note = "columns: target"
    if shared:
        note += f" fine-tuned on    {SHARED} other datasets share its source images"
    figure.supxlabel(note, fontsize=7)
    return figure, shown_rows


def _numbers(
    cells: Cells, model: str, methods: Sequence[str], columns: Sequence[str]
) -> np.ndarray:
    """RI of a model's panel, mRI in the last column: (methods, columns), NaN where there is none.

    `cells` is such as {("net", "ft", "noto"): {"ri": 1.2, ...}}.
    """
    numbers = np.full((len(methods), len(columns)), np.nan)
    for row, method in enumerate(methods):
        for column, target in enumerate(columns):
            if (model, method, target) in cells:
                numbers[row, column] = cells[model, method, target]["ri"]
    return numbers


def _name_columns(axes: Axes, target_labels: Sequence[str]) -> None:
    """Name the targets above the matrix; the last column is mRI, in bold."""
    names = [textwrap.fill(label, 12, break_long_words=False) for label in target_labels]
    names.append(MRI_LABEL)
    axes.set_xticks(range(len(names)), names)
    axes.get_xticklabels()[-1].set_fontweight("bold")


def _write_cell(
    axes: Axes,
    image: AxesImage,
    row: int,
    column: int,
    cell: Mapping[Hashable, Any],
    is_shared: bool,
) -> None:
    """Write RI with its marks; below it confidence interval and fit (training accuracy)."""
    text = points(cell["ri"])
    if is_shared:
        text += SHARED
    if cell["underfitted"]:
        text += UNDERFITTED
    interval = f"{points(cell['ci_low'])} to {points(cell['ci_high'])}"
    fit = fit_percent(cell["fit"])
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": text_colour(image, cell["ri"])}
    axes.text(column, row - 0.22, text, **look)
    axes.text(column, row + 0.1, interval, **look, fontsize=5.5)
    if fit:
        axes.text(column, row + 0.34, f"fit {fit}", **look, fontsize=5.5, alpha=0.75)
