"""Helpers for lines with confidence intervals over a number of images."""

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

DODGE = 0.05  # relative shift between lines, so that intervals don't overlap
ENTRY = 1.75  # width of a legend entry in inches


def line_with_intervals(
    axes: Axes,
    rows: pd.DataFrame,
    over: str,
    value: str,
    low: str,
    high: str,
    style: Mapping[str, str],
    place: int = 0,
    places: int = 1,
) -> None:
    """Draw one line.

    Args:
        axes: axes to draw on.
        rows: sorted by `over`; each row is a point, and the line goes through the mean of points with equal `over`.
        over: column of the number of images, above 0.
        value: column of the line.
        low: column of the lower confidence limits.
        high: column of the upper confidence limits.
        style: label, colour and marker.
        place: index of the line among those on the axes.
        places: number of lines on the axes.
    """
    shift = (1 + DODGE) ** (place - (places - 1) / 2)
    means = rows.groupby(over)[value].mean()
    axes.plot(means.index * shift, means, color=style["colour"], linewidth=1.2, linestyle=style.get("line", "-"))
    axes.errorbar(
        rows[over] * shift,
        rows[value],
        yerr=[rows[value] - rows[low], rows[high] - rows[value]],
        fmt=style["marker"],
        markersize=4.5,
        color=style["colour"],
        elinewidth=0.9,
        capsize=2,
        label=style["label"],
    )


def image_axis(axes: Axes, numbers: Iterable[float]) -> None:
    """Logarithmic axis of numbers of images, with ticks at the given numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(numbers), [f"{round(number):,}" for number in numbers])
    low, high = min(numbers), max(numbers)
    axes.set_xlim(low / 1.3, high * 1.3)


def method_legend(figure: Figure, axes: Axes) -> None:
    """One legend for the lines of `axes`, above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, int(figure.get_figwidth() / ENTRY)))
