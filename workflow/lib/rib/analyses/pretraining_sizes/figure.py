"""Draws the figure `pretraining_sizes`."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from rib.base.appearance import INK, PRETRAINED_LABEL
from rib.figures import Drawn, Labels, Styles
from rib.figures._panels import image_axis, line_with_intervals, method_legend

BEFORE = {"label": f"before ({PRETRAINED_LABEL})", "colour": INK, "marker": "*", "line": ":"}
ROOM = 0.22  # width of the axes per model, in inches
NARROWEST = 3.4  # smallest width of the axes, in inches
BESIDE_AXES = 1.4  # width outside the axes, in inches


def draw_pretraining_sizes(
    pretraining_sizes: pd.DataFrame,
    *,
    models: Labels,
    series: Mapping[str, str],
    methods: Styles,
    confidence: float,
) -> Drawn:
    """Draw mean accuracy on other datasets (percent) and mRI by number of pretraining images.

    Lines join models of a series. If all models are of one series, the axis is logarithmic;
    otherwise models stand side by side in the order of their numbers.

    Args:
        pretraining_sizes: columns model, method, pretraining_images, before, before_low,
            before_high, after, after_low, after_high, mri, ci_low, ci_high.
        models: labels, {"cnn_1k": "CNN"}.
        series: by model, such as {"cnn_1k": "cnn on fashion"}; models of a series differ only in
            the number of pretraining images.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """

    has_model = pretraining_sizes["model"].isin(list(models))
    has_method = pretraining_sizes["method"].isin(list(methods))
    shown_rows = pretraining_sizes[has_model & has_method].sort_values(
        ["pretraining_images", "before"], kind="stable"
    )
    images = shown_rows.drop_duplicates("model").set_index("model")["pretraining_images"]
    series_of_rows = shown_rows["model"].map(lambda model: series.get(model, model))
    side_by_side = series_of_rows.nunique() > 1
    if side_by_side:
        # Powers of 2 are equally spaced on a logarithmic axis.
        x_of_models = 2.0 ** pd.Series(range(len(images)), images.index)
        width = max(NARROWEST, ROOM * len(images))
        height = 6.6
    else:
        x_of_models = images
        width = NARROWEST
        height = 5.2
    figure, (accuracy_axes, mri_axes) = plt.subplots(
        2, figsize=(BESIDE_AXES + width, height), sharex=True, height_ratios=(3, 2)
    )
    with_x = shown_rows.assign(x=shown_rows["model"].map(x_of_models))
    for i, (_, of_series) in enumerate(with_x.groupby(series_of_rows, sort=False)):
        _draw_series(accuracy_axes, mri_axes, of_series, methods, labelled=i == 0)
    image_axis(mri_axes, x_of_models)
    note = "Pretraining images (log scale); "
    if side_by_side:
        note = "Models in the order of their pretraining images (above the panels); "
        labels = [models[model] for model in x_of_models.index]
        mri_axes.set_xticks(x_of_models, labels, rotation=90, fontsize=7)
        _draw_numbers(accuracy_axes, mri_axes, images)
    mri_axes.axhline(0, color=INK, linewidth=0.8)
    accuracy_axes.set_ylabel("Mean OOD accuracy (%)")
    mri_axes.set_ylabel("mRI (percentage points)")
    note += f"whiskers: {confidence:.0%} confidence intervals"
    figure.supxlabel(textwrap.fill(note, int(13 * (BESIDE_AXES + width))), fontsize=8)
    method_legend(figure, accuracy_axes)
    return figure, shown_rows.reset_index(drop=True)


def _draw_numbers(accuracy_axes: Axes, mri_axes: Axes, images: pd.Series) -> None:
    """Write the number of images above models that share it, with lines between the numbers.

    `images` is ascending by model; models stand at 2 ** 0, 2 ** 1, ...
    """
    exponents = pd.Series(np.arange(len(images), dtype=float), images.index)
    exponents_of_number = exponents.groupby(images)
    middles = exponents_of_number.mean()
    above = accuracy_axes.secondary_xaxis("top")
    above.xaxis.set_minor_locator(NullLocator())
    labels = [_number_of_images(number) for number in middles.index]
    above.set_xticks(2.0**middles, labels, fontsize=7)
    above.tick_params(length=0)
    last_of_groups = exponents_of_number.max()
    for last in last_of_groups.iloc[:-1]:
        between = 2.0 ** (last + 0.5)
        for axes in (accuracy_axes, mri_axes):
            axes.axvline(between, color="#bdbdbd", linewidth=0.8, linestyle=":")


def _number_of_images(number: int) -> str:
    """Text above models: `50,000`, or `400 M` for millions, short enough for a few models."""
    return f"{number / 1e6:,.4g} M" if number >= 1e6 else f"{number:,}"


def _draw_series(
    accuracy_axes: Axes, mri_axes: Axes, rows: pd.DataFrame, methods: Styles, labelled: bool
) -> None:
    """Draw a line before fine-tuning and one per method; only one series is `labelled`."""
    styles = [BEFORE, *methods.values()]
    if not labelled:
        styles = [{**style, "label": "_"} for style in styles]
    lines = len(styles)
    before = rows.drop_duplicates("model")
    columns = ["before", "before_low", "before_high"]
    line_with_intervals(accuracy_axes, before, "x", columns, styles[0], 0, lines)
    for i, method in enumerate(methods, start=1):
        of_method = rows[rows["method"] == method]
        columns = ["after", "after_low", "after_high"]
        line_with_intervals(accuracy_axes, of_method, "x", columns, styles[i], i, lines)
        columns = ["mri", "ci_low", "ci_high"]
        line_with_intervals(mri_axes, of_method, "x", columns, styles[i], i, lines)
