"""Flips by fine-tuning: images that become wrong or right, and agreement of predictions."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.figures import GAIN, LOSS

# Distinguishable without colour by side and hatching.
BARS = {
    "right_to_wrong": {"side": -1, "color": LOSS, "hatch": None, "label": "right before, wrong after"},
    "wrong_to_right": {"side": 1, "color": GAIN, "hatch": "///", "label": "wrong before, right after"},
}
ROOM = 1.3  # axis limit relative to the longest whisker, so that numbers fit


def draw(
    flips: pd.DataFrame, *, models: Mapping[str, str], methods: Mapping[str, str], confidence: float
) -> tuple[Figure, pd.DataFrame]:
    """Diverging bars of flips and dots of agreement, in percent of the other datasets' images, with confidence
    intervals.

    Args:
        flips: columns model, method, and agreement, right_to_wrong, wrong_to_right, each with _low and _high (percent).
    """
    shown = flips[flips["model"].isin(list(models)) & flips["method"].isin(list(methods))]
    figure, panels = plt.subplots(
        len(models),
        2,
        figsize=(7.2, 1.1 + len(models) * (0.45 + 0.34 * len(methods))),
        squeeze=False,
        sharex="col",
        width_ratios=[3, 1.6],
    )
    for (left, right), (model, label) in zip(panels, models.items(), strict=True):
        rows = shown[shown["model"] == model].set_index("method")
        run = [method for method in methods if method in rows.index]  # some methods apply to one type of model only
        _draw_flips(left, rows.loc[run])
        _draw_agreement(right, rows.loc[run])
        left.set_title(label, loc="left")
        for axes in (left, right):
            axes.set_yticks(range(len(run)), [methods[method] for method in run] if axes is left else [])
            axes.set_ylim(len(run) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.grid(True, axis="x")
            axes.grid(False, axis="y")
    low, high = (ROOM * shown[f"{name}_high"].max() for name in BARS)
    panels[0, 0].set_xlim(-max(low, 1), max(high, 1))
    panels[0, 1].set_xlim(0, 109)
    panels[-1, 0].xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    panels[-1, 0].set_xlabel("flipped images (%)")
    panels[-1, 1].set_xlabel("same prediction (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.supxlabel(f"means over the other datasets; whiskers: {confidence:.0%} confidence intervals", fontsize=7)
    return figure, shown.reset_index(drop=True)


def _draw_flips(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    for name, style in BARS.items():
        side, whiskers = style["side"], _whiskers(rows, name)
        axes.barh(
            places,
            side * rows[name],
            0.7,
            xerr=whiskers if side > 0 else whiskers[::-1],
            color=style["color"],
            hatch=style["hatch"],
            edgecolor="#252525",
            linewidth=0.6,
            error_kw={"ecolor": "#252525", "elinewidth": 1, "capsize": 2},
            label=style["label"],
        )
        for place, value, end in zip(places, rows[name], rows[f"{name}_high"], strict=True):
            axes.annotate(
                f"{value:.1f}",
                (side * end, place),
                xytext=(side * 3, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=7,
            )
    axes.axvline(0, color="black", linewidth=0.8)


def _draw_agreement(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    style = {"color": "#252525", "marker": "o", "markersize": 4, "linestyle": "none", "elinewidth": 1, "capsize": 2}
    axes.errorbar(rows["agreement"], places, xerr=_whiskers(rows, "agreement"), **style)
    for place, value in zip(places, rows["agreement"], strict=True):
        left = value > 75  # a number to the right would not fit into the panel
        axes.annotate(
            f"{value:.0f}",
            (value, place),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom",
            fontsize=7,
        )


def _whiskers(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Lengths of the lower and upper whiskers: (2, n)."""
    return np.stack([rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]])
