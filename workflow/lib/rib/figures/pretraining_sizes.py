"""Controlled comparison of pretraining sizes: accuracy on the other datasets before and after fine-tuning, and mRI."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rib.figures._lines import image_axis, line_with_intervals, method_legend

BEFORE = {"label": "before (pretrained)", "colour": "#252525", "marker": "*", "line": ":"}


def draw(
    pretraining_sizes: pd.DataFrame,
    *,
    series: Mapping[str, str],
    methods: Mapping[str, Mapping[str, str]],
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """Mean OOD accuracy (percent) and mRI by number of pretraining images (log scale), one column per series.

    Args:
        pretraining_sizes: columns model, method, pretraining_images, before, before_low, before_high, after, after_low,
            after_high, mri, ci_low, ci_high, as written by rib.analysis.sizes.
        series: series title by model; models of a series differ only in the pretraining size.
    """
    wanted = pretraining_sizes["model"].isin(list(series)) & pretraining_sizes["method"].isin(list(methods))
    shown = pretraining_sizes[wanted]
    titles = list(dict.fromkeys(series.values()))
    size = (1.4 + 3.4 * len(titles), 5.2)
    figure, panels = plt.subplots(
        2, len(titles), figsize=size, sharex="col", sharey="row", squeeze=False, height_ratios=(3, 2)
    )
    for (top, bottom), title in zip(panels.T, titles, strict=True):
        own = shown[shown["model"].map(series) == title]
        over, places = "pretraining_images", len(methods) + 1
        before = own.drop_duplicates("model")
        line_with_intervals(top, before, over, ["before", "before_low", "before_high"], BEFORE, 0, places)
        for place, (method, style) in enumerate(methods.items(), 1):
            rows = own[own["method"] == method]
            line_with_intervals(top, rows, over, ["after", "after_low", "after_high"], style, place, places)
            line_with_intervals(bottom, rows, over, ["mri", "ci_low", "ci_high"], style, place, places)
        bottom.axhline(0, color="#252525", linewidth=0.8)
        image_axis(bottom, np.unique(own[over]))
        if len(titles) > 1:
            top.set_title(title)
    panels[0, 0].set_ylabel("Mean OOD accuracy (%)")
    panels[1, 0].set_ylabel("mRI (percentage points)")
    figure.supxlabel(f"Pretraining images (log scale); whiskers: {confidence:.0%} confidence intervals", fontsize=8)
    method_legend(figure, panels[0, 0])
    return figure, shown.reset_index(drop=True)
