"""Mean OOD accuracy before and after fine-tuning, and mRI, against the number of pretraining images."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from rib.figures._lines import image_axis, line_with_intervals, method_legend

BEFORE = {"label": "before (pretrained)", "colour": "#252525", "marker": "*", "line": ":"}
LABEL, ROOM = 0.12, 0.17  # width of a model's label, and of the axes for each model, in inches


def draw(
    pretraining_sizes: pd.DataFrame,
    *,
    models: Mapping[str, str],
    series: Mapping[str, str],
    methods: Mapping[str, Mapping[str, str]],
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """Mean OOD accuracy (percent) and mRI by number of pretraining images (log scale); lines join models of a series.

    Models are labelled unless all are of one series; those with about the same number stand side by side.

    Args:
        pretraining_sizes: columns model, method, pretraining_images, before, before_low, before_high, after, after_low,
            after_high, mri, ci_low, ci_high, as written by rib.analysis.sizes.
        series: by model, what it is one of; models of a series differ only in the pretraining size.
    """
    wanted = pretraining_sizes["model"].isin(list(models)) & pretraining_sizes["method"].isin(list(methods))
    shown = pretraining_sizes[wanted].sort_values(["pretraining_images", "before"], kind="stable")
    images = shown.drop_duplicates("model").set_index("model")["pretraining_images"]
    width = max(3.4, ROOM * len(images))
    figure, (top, bottom) = plt.subplots(2, figsize=(1.4 + width, 5.2), sharex=True, height_ratios=(3, 2))
    logs = np.log10(images)
    # The places closest to the numbers that leave each label its width; models of a series hardly move.
    apart = LABEL / width * (np.ptp(logs) + 0.3) * np.arange(len(images))
    moves = isotonic_regression(logs - apart, weights=np.where(images.index.isin(list(series)), 1000, 1))
    places = 10 ** pd.Series(moves.x + apart, images.index)
    of_series = shown["model"].map(lambda model: series.get(model, model))
    for number, (_, own) in enumerate(shown.assign(place=shown["model"].map(places)).groupby(of_series, sort=False)):
        _draw_models(top, bottom, own, methods, labelled=number == 0)
    note = f"Pretraining images (log scale); whiskers: {confidence:.0%} confidence intervals"
    if of_series.nunique() == 1:
        image_axis(bottom, images)
    else:
        note += "\nmodels with about the same number stand side by side"
        bottom.set_xscale("log")
        figure.set_figheight(6.6)
        named = top.secondary_xaxis("top")
        named.set_xticks(places, [models[model] for model in places.index], rotation=90, fontsize=6)
        named.tick_params(axis="x", which="both", length=0)
        named.spines["top"].set_visible(False)
    bottom.axhline(0, color="#252525", linewidth=0.8)
    top.set_ylabel("Mean OOD accuracy (%)")
    bottom.set_ylabel("mRI (percentage points)")
    figure.supxlabel(note, fontsize=8)
    method_legend(figure, top)
    return figure, shown.reset_index(drop=True)


def _draw_models(
    top: Axes, bottom: Axes, own: pd.DataFrame, methods: Mapping[str, Mapping[str, str]], labelled: bool
) -> None:
    """Lines through the models of one series, with labels for the legend or without."""
    label, places = {} if labelled else {"label": "_"}, len(methods) + 1
    first, before = own.drop_duplicates("model"), ["before", "before_low", "before_high"]
    line_with_intervals(top, first, "place", before, BEFORE | label, 0, places)
    for place, (method, style) in enumerate(methods.items(), 1):
        rows = own[own["method"] == method]
        for axes, columns in ((top, ["after", "after_low", "after_high"]), (bottom, ["mri", "ci_low", "ci_high"])):
            line_with_intervals(axes, rows, "place", columns, style | label, place, places)
