"""Draws the figure `flips`."""

from collections.abc import Collection
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.base.appearance import GAIN, INK, LOSS
from rib.base.rounding import percent, whole_percent
from rib.figures import Drawn, Labels, ModelAndMethod, Style, label_of_run
from rib.figures._panels import name_rows

# Side and hatching distinguish them without colour.
TO_WRONG: dict[str, Any] = {"color": LOSS, "hatch": None, "label": "right before, wrong after"}
TO_RIGHT: dict[str, Any] = {"color": GAIN, "hatch": "///", "label": "wrong before, right after"}
ROOM = 0.15  # for a number on each side, as a share of both whiskers
NUMBER: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7}
EDGES: dict[str, Any] = {
    "edgecolor": INK,
    "linewidth": 0.6,
    "error_kw": {"ecolor": INK, "elinewidth": 1, "capsize": 2},
}
DOT: dict[str, Any] = {
    "color": INK,
    "marker": "o",
    "markersize": 4,
    "linestyle": "none",
    "elinewidth": 1,
    "capsize": 2,
}


def draw_flips(
    flips: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    confidence: float,
    underfitted: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Draw how many images fine-tuning made wrong (left) and right (right), and how many agree.

    All are percent of the other datasets' images, with confidence intervals.

    Args:
        flips: columns model, method, and agreement, right_to_wrong, wrong_to_right, each with _low
            and _high (percent).
        models, methods: labels, {"ft": "FT"}.
        underfitted: pairs to mark, {("net", "ft")}, with low accuracy on training images.
    """

    shown_rows = flips[flips["model"].isin(list(models)) & flips["method"].isin(list(methods))]
    size = (7.2, 1.1 + len(models) * (0.45 + 0.34 * len(methods)))
    figure, panels = plt.subplots(
        len(models), 2, figsize=size, squeeze=False, sharex="col", width_ratios=[3, 1.6]
    )
    for (flip_axes, agreement_axes), (model, label) in zip(panels, models.items(), strict=True):
        rows = shown_rows[shown_rows["model"] == model].set_index("method")
        # Some methods are for one type of model only.
        methods_of_model = [method for method in methods if method in rows.index]
        rows = rows.loc[methods_of_model]
        _draw_flips(flip_axes, rows, "right_to_wrong", TO_WRONG, side=-1)
        _draw_flips(flip_axes, rows, "wrong_to_right", TO_RIGHT, side=1)
        flip_axes.axvline(0, color="black", linewidth=0.8)
        _draw_agreement(agreement_axes, rows)
        flip_axes.set_title(label, loc="left")
        method_labels = [
            label_of_run(methods[method], (model, method), underfitted)
            for method in methods_of_model
        ]
        name_rows(flip_axes, method_labels)
        name_rows(agreement_axes, [""] * len(methods_of_model))
    _set_flip_limits(panels[0, 0], shown_rows)
    panels[0, 1].set_xlim(0, 109)
    panels[-1, 0].xaxis.set_major_formatter(_without_sign)
    panels[-1, 0].set_xlabel("flipped images (%)")
    panels[-1, 1].set_xlabel("same prediction (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.supxlabel(
        f"means over the other datasets; whiskers: {confidence:.0%} confidence intervals over "
        "objects",
        fontsize=7,
    )
    return figure, shown_rows.reset_index(drop=True)


def _without_sign(x: float, _position: int) -> str:
    """Tick label, `12` for -12.0 left of 0; Matplotlib also passes the tick's position."""
    return f"{abs(x):g}"


def _set_flip_limits(axes: Axes, shown_rows: pd.DataFrame) -> None:
    """Set the limits of the axis, with room for the numbers beside the whiskers."""
    to_left = max(1, shown_rows["right_to_wrong_high"].max())
    to_right = max(1, shown_rows["wrong_to_right_high"].max())
    room = ROOM * (to_left + to_right)
    axes.set_xlim(-to_left - room, to_right + room)


def _draw_flips(axes: Axes, rows: pd.DataFrame, flip: str, style: Style, side: int) -> None:
    """Draw bars with numbers; `side` is -1 for left or 1 for right of 0."""
    rows_y = np.arange(len(rows))
    lengths = rows[flip]
    whiskers = _whiskers(rows, flip)[::side]  # on the left, low and high ends swap
    axes.barh(rows_y, side * lengths, 0.7, xerr=whiskers, **EDGES, **style)
    align = "left" if side > 0 else "right"
    for y, length, end in zip(rows_y, lengths, rows[f"{flip}_high"], strict=True):
        axes.annotate(
            percent(length), (side * end, y), (side * 3, 0), ha=align, va="center", **NUMBER
        )


def _draw_agreement(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw for each method the percentage of equal predictions: dot, whiskers, number."""
    rows_y = np.arange(len(rows))
    axes.errorbar(rows["agreement"], rows_y, xerr=_whiskers(rows, "agreement"), **DOT)
    for y, agreement in zip(rows_y, rows["agreement"], strict=True):
        # Right of a large value, the number would not fit into the panel.
        align = "right" if agreement > 75 else "left"
        axes.annotate(
            whole_percent(agreement), (agreement, y), (0, 4), ha=align, va="bottom", **NUMBER
        )


def _whiskers(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Lengths (2, n) of lower and upper whiskers, as Matplotlib takes them."""
    lower = rows[column] - rows[f"{column}_low"]
    upper = rows[f"{column}_high"] - rows[column]
    return np.stack([lower, upper])
