"""Helpers for lines with confidence intervals over a number of images."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

DODGE = 0.05  # relative shift between lines, so that intervals don't overlap
ENTRY = 1.75  # width of a legend entry in inches


def line_with_intervals(
    axes: Axes, rows: pd.DataFrame, over: str, columns: Sequence[str], style: Mapping[str, str], place: int, places: int
) -> None:
    """Draw one line.

    Args:
        rows: sorted by `over`; each row is a point, and the line goes through the mean of points with equal `over`.
        over: column of the number of images, above 0.
        columns: columns of the line and its lower and upper confidence limits.
        style: label, colour and marker; `line` if it is not solid.
        place, places: index of the line among those on the axes, and their number.
    """
    shift = (1 + DODGE) ** (place - (places - 1) / 2)
    value, low, high = (rows[column] for column in columns)
    means = value.groupby(rows[over]).mean()
    axes.plot(means.index * shift, means, color=style["colour"], linewidth=1.2, linestyle=style.get("line", "-"))
    look = {"fmt": style["marker"], "color": style["colour"], "label": style["label"]}
    whiskers = [value - low, high - value]
    axes.errorbar(rows[over] * shift, value, whiskers, **look, markersize=4.5, elinewidth=0.9, capsize=2)


def image_axis(axes: Axes, numbers: Iterable[float]) -> None:
    """Logarithmic axis of numbers of images, with ticks at the given numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(numbers), [f"{round(number):,}" for number in numbers])
    axes.set_xlim(min(numbers) / 1.3, max(numbers) * 1.3)


def method_legend(figure: Figure, axes: Axes) -> None:
    """One legend for the lines of `axes`, above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, int(figure.get_figwidth() / ENTRY)))
