"""Flips by fine-tuning: images that become wrong or right, and agreement of predictions."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.base.rounding import percent, whole_percent
from rib.figures import GAIN, LOSS, Drawn, Labels
from rib.figures._panels import name_rows

# Distinguishable without colour by side and hatching.
BARS = {
    "right_to_wrong": {"color": LOSS, "hatch": None, "label": "right before, wrong after"},
    "wrong_to_right": {"color": GAIN, "hatch": "///", "label": "wrong before, right after"},
}
ROOM = 0.15  # for a number on each side, relative to the whiskers on both sides
INK = "#252525"
NUMBER = {"textcoords": "offset points", "fontsize": 7}


def draw(flips: pd.DataFrame, *, models: Labels, methods: Labels, confidence: float) -> Drawn:
    """Diverging bars of flips and dots of agreement with confidence intervals, in percent of the other datasets' images.

    Args:
        flips: columns model, method, and agreement, right_to_wrong, wrong_to_right, each with _low and _high (percent).
    """
    shown = flips[flips["model"].isin(list(models)) & flips["method"].isin(list(methods))]
    size = (7.2, 1.1 + len(models) * (0.45 + 0.34 * len(methods)))
    figure, panels = plt.subplots(
        len(models), 2, figsize=size, squeeze=False, sharex="col", width_ratios=[3, 1.6]
    )
    for (left, right), (model, label) in zip(panels, models.items(), strict=True):
        rows = shown[shown["model"] == model].set_index("method")
        run = [
            method for method in methods if method in rows.index
        ]  # some methods apply to one type of model only
        _draw_flips(left, rows.loc[run])
        _draw_agreement(right, rows.loc[run])
        left.set_title(label, loc="left")
        name_rows(left, [methods[method] for method in run])
        name_rows(right, [""] * len(run))
    low, high = (max(1, shown[f"{name}_high"].max()) for name in BARS)
    panels[0, 0].set_xlim(-low - ROOM * (low + high), high + ROOM * (low + high))
    panels[0, 1].set_xlim(0, 109)
    panels[-1, 0].xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    panels[-1, 0].set_xlabel("flipped images (%)")
    panels[-1, 1].set_xlabel("same prediction (%)")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    note = f"means over the other datasets; whiskers: {confidence:.0%} confidence intervals over objects"
    figure.supxlabel(note, fontsize=7)
    return figure, shown.reset_index(drop=True)


def _draw_flips(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    edges = {
        "edgecolor": INK,
        "linewidth": 0.6,
        "error_kw": {"ecolor": INK, "elinewidth": 1, "capsize": 2},
    }
    for side, align, (name, style) in zip((-1, 1), ("right", "left"), BARS.items(), strict=True):
        axes.barh(
            places, side * rows[name], 0.7, xerr=_whiskers(rows, name)[::side], **edges, **style
        )
        for place, value, end in zip(places, rows[name], rows[f"{name}_high"], strict=True):
            axes.annotate(
                percent(value), (side * end, place), (side * 3, 0), ha=align, va="center", **NUMBER
            )
    axes.axvline(0, color="black", linewidth=0.8)


def _draw_agreement(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    style = {
        "color": INK,
        "marker": "o",
        "markersize": 4,
        "linestyle": "none",
        "elinewidth": 1,
        "capsize": 2,
    }
    axes.errorbar(rows["agreement"], places, xerr=_whiskers(rows, "agreement"), **style)
    for place, value in zip(places, rows["agreement"], strict=True):
        align = (
            "right" if value > 75 else "left"
        )  # a number to the right would not fit into the panel
        axes.annotate(whole_percent(value), (value, place), (0, 4), ha=align, va="bottom", **NUMBER)


def _whiskers(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Lengths of the lower and upper whiskers: (2, n)."""
    return np.stack([rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]])
