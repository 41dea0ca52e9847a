"""Draws the figure `train_subsets`."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as PlottedFigure

from rib.base.appearance import INK
from rib.figures import Drawn, Labels, Styles
from rib.figures._panels import image_axis, line_with_intervals, method_legend
from rib.schema.run import MEAN

COLUMNS = 3  # maximum number of panel columns


def draw_train_subsets(
    sizes: pd.DataFrame, *, models: Labels, methods: Styles, confidence: float
) -> Drawn:
    """Draw mRI (change of accuracy elsewhere, in points) by number of training images.

    Args:
        sizes: columns model, method, target, size, train_images, ri, ci_low, ci_high. Rows with the
            target MEAN have mRI in the column ri.
        models: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """

    is_chosen = sizes["model"].isin(list(models)) & sizes["method"].isin(list(methods))
    shown_rows = sizes[(sizes["target"] == MEAN) & is_chosen]
    figure, panels = _panels(len(models))
    for axes, (model, label) in zip(panels.flat, models.items(), strict=False):
        of_model = shown_rows[shown_rows["model"] == model]
        for i, (method, style) in enumerate(methods.items()):
            of_method = of_model[of_model["method"] == method].sort_values("train_images")
            line_with_intervals(
                axes,
                of_method,
                over="train_images",
                columns=["ri", "ci_low", "ci_high"],
                style=style,
                index=i,
                lines=len(methods),
            )
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(label)
        image_axis(axes, np.unique(of_model["train_images"]))
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    figure.supylabel("mRI (percentage points)", fontsize=9)
    figure.supxlabel(
        f"Fine-tuning images (log scale); whiskers: {confidence:.0%} confidence intervals",
        fontsize=8,
    )
    method_legend(figure, panels.flat[0])
    return figure, shown_rows.reset_index(drop=True)


def _panels(number_of_models: int) -> tuple[PlottedFigure, np.ndarray]:
    """A figure and its array of panels, (rows, columns), at least one per model."""
    columns = min(COLUMNS, number_of_models)
    if number_of_models == 4:
        columns = 2  # two and two look better than three and one
    rows = math.ceil(number_of_models / columns)
    width = max(3.6, 1.2 + 2.1 * columns)
    height = 0.9 + 2.2 * rows
    return plt.subplots(rows, columns, figsize=(width, height), sharey=True, squeeze=False)
