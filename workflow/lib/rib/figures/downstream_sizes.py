"""Mean robustness improvement by the number of images fine-tuned on, per model and method."""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rib.analysis.sizes import MEAN
from rib.figures._lines import image_axis, line_with_intervals, method_legend

EVERY_SIZE = True
COLUMNS = 3  # panels in a row, at most


def draw(
    sizes: pd.DataFrame,
    *,
    models: Mapping[str, str],
    methods: Mapping[str, Mapping[str, str]],
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """Lines of mRI (percentage points) with intervals over the number of training images (log scale), a panel per model.

    Args:
        sizes: columns model, method, target, size, train_images, ri, ci_low, ci_high, as rib.analysis.sizes writes them.
        models: label by model, in the order to draw.
        methods: label, colour and marker by method, likewise.
        confidence: coverage of the intervals, between 0 and 1.

    Returns:
        The figure and the rows it shows.
    """
    shown = sizes[(sizes["target"] == MEAN) & sizes["model"].isin(list(models)) & sizes["method"].isin(list(methods))]
    columns = 2 if len(models) == 4 else min(COLUMNS, len(models))
    lines = math.ceil(len(models) / columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(max(3.6, 1.2 + 2.1 * columns), 0.9 + 2.2 * lines), sharey=True, squeeze=False
    )
    for axes, (model, label) in zip(panels.flat, models.items(), strict=False):
        own = shown[shown["model"] == model]
        for place, (method, look) in enumerate(methods.items()):
            rows = own[own["method"] == method].sort_values("train_images")
            line_with_intervals(axes, rows, "train_images", "ri", "ci_low", "ci_high", look, place, len(methods))
        axes.axhline(0, color="#252525", linewidth=0.8)
        axes.set_title(label)
        image_axis(axes, np.unique(own["train_images"]))
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    figure.supylabel("mRI (percentage points)", fontsize=9)
    figure.supxlabel(f"Images fine-tuned on (log scale); whiskers: {confidence:.0%} intervals over objects", fontsize=8)
    method_legend(figure, panels.flat[0])
    return figure, shown.reset_index(drop=True)
