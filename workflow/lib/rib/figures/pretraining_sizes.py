"""Mean OOD accuracy before and after fine-tuning, and mRI, against the number of pretraining images."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from rib.figures import Drawn, Labels, Styles
from rib.figures._panels import image_axis, line_with_intervals, method_legend

BEFORE = {"label": "before (pretrained)", "colour": "#252525", "marker": "*", "line": ":"}
ROOM = 0.22  # width of the axes for each model, in inches


def draw(
    pretraining_sizes: pd.DataFrame,
    *,
    models: Labels,
    series: Mapping[str, str],
    methods: Styles,
    confidence: float,
) -> Drawn:
    """Mean OOD accuracy (percent) and mRI by number of pretraining images; lines join models of a series.

    The scale is logarithmic if all models are of one series. Others stand side by side in the order of their numbers.

    Args:
        pretraining_sizes: columns model, method, pretraining_images, before, before_low, before_high, after, after_low,
            after_high, mri, ci_low, ci_high, as written by rib.analysis.sizes.
        series: by model, what it is one of; models of a series differ only in the pretraining size.
    """
    wanted = pretraining_sizes["model"].isin(list(models)) & pretraining_sizes["method"].isin(
        list(methods)
    )
    shown = pretraining_sizes[wanted].sort_values(["pretraining_images", "before"], kind="stable")
    images = shown.drop_duplicates("model").set_index("model")["pretraining_images"]
    of_series = shown["model"].map(lambda model: series.get(model, model))
    places, width, high = images, 3.4, 5.2
    if several := of_series.nunique() > 1:
        places, width, high = (
            2.0 ** pd.Series(range(len(images)), images.index),
            max(3.4, ROOM * len(images)),
            6.6,
        )
    figure, (top, bottom) = plt.subplots(
        2, figsize=(1.4 + width, high), sharex=True, height_ratios=(3, 2)
    )
    for number, (_, own) in enumerate(
        shown.assign(place=shown["model"].map(places)).groupby(of_series, sort=False)
    ):
        _draw_models(top, bottom, own, methods, labelled=number == 0)
    image_axis(bottom, places)
    note = "Pretraining images (log scale); "
    if several:
        note = "Models in the order of their pretraining images (above the panels, in millions); "
        bottom.set_xticks(
            places, [models[model] for model in places.index], rotation=90, fontsize=7
        )
        _draw_numbers(top, bottom, np.log2(places).groupby(images))
    bottom.axhline(0, color="#252525", linewidth=0.8)
    top.set_ylabel("Mean OOD accuracy (%)")
    bottom.set_ylabel("mRI (percentage points)")
    note = textwrap.fill(
        f"{note}whiskers: {confidence:.0%} confidence intervals", int(13 * (1.4 + width))
    )
    figure.supxlabel(note, fontsize=8)
    method_legend(figure, top)
    return figure, shown.reset_index(drop=True)


def _draw_numbers(top: Axes, bottom: Axes, groups) -> None:
    """Numbers of images above the models that have them, with lines between groups of places (powers of 2)."""
    above = top.secondary_xaxis("top")
    above.xaxis.set_minor_locator(NullLocator())
    above.set_xticks(
        2.0 ** groups.mean(), [f"{images / 1e6:,.4g}" for images in groups.groups], fontsize=7
    )
    above.tick_params(length=0)
    for last in groups.max()[:-1]:
        for axes in (top, bottom):
            axes.axvline(2.0 ** (last + 0.5), color="#bdbdbd", linewidth=0.8, linestyle=":")


def _draw_models(
    top: Axes, bottom: Axes, own: pd.DataFrame, methods: Styles, labelled: bool
) -> None:
    """Lines through the models of one series, with labels for the legend or without."""
    label, places = {} if labelled else {"label": "_"}, len(methods) + 1
    first, before = own.drop_duplicates("model"), ["before", "before_low", "before_high"]
    line_with_intervals(top, first, "place", before, BEFORE | label, 0, places)
    for place, (method, style) in enumerate(methods.items(), 1):
        rows = own[own["method"] == method]
        for axes, columns in (
            (top, ["after", "after_low", "after_high"]),
            (bottom, ["mri", "ci_low", "ci_high"]),
        ):
            line_with_intervals(axes, rows, "place", columns, style | label, place, places)
