"""Lines with intervals over a number of images, a line per method, as several figures draw them. No figure itself."""

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

DODGE = 0.05  # by how much of its place a line of several is shifted, so that intervals don't hide one another

ENTRY = 1.75  # inches that a legend's entry takes


def line_with_intervals(
    axes: Axes,
    rows: pd.DataFrame,
    over: str,
    value: str,
    low: str,
    high: str,
    look: Mapping[str, str],
    place: int = 0,
    places: int = 1,
) -> None:
    """Draw one line.

    Args:
        axes: where to.
        rows: sorted by `over`; rows of the same place are points of their own, and the line goes through their mean.
        over: column of the number of images, above 0.
        value: column of the line.
        low: column of its interval's lower end.
        high: likewise upper.
        look: label, colour and marker.
        place: of the line among those that share the axes.
        places: how many do.
    """
    shift = (1 + DODGE) ** (place - (places - 1) / 2)
    means = rows.groupby(over)[value].mean()
    axes.plot(means.index * shift, means, color=look["colour"], linewidth=1.2, linestyle=look.get("line", "-"))
    axes.errorbar(
        rows[over] * shift,
        rows[value],
        yerr=[rows[value] - rows[low], rows[high] - rows[value]],
        fmt=look["marker"],
        markersize=4.5,
        color=look["colour"],
        elinewidth=0.9,
        capsize=2,
        label=look["label"],
    )


def image_axis(axes: Axes, numbers: Iterable[float]) -> None:
    """A logarithmic axis of numbers of images, marked where there are some."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(numbers), [f"{round(number):,}" for number in numbers])
    low, high = min(numbers), max(numbers)
    axes.set_xlim(low / 1.3, high * 1.3)


def method_legend(figure: Figure, axes: Axes) -> None:
    """One legend of the lines of `axes` above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, int(figure.get_figwidth() / ENTRY)))
