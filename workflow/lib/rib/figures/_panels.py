"""Helpers that several figures share: panels, rows of a panel, and lines with intervals over a number of images."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rib.figures import Labels

WIDEST = 4  # maximum number of panel columns
DODGE = 0.05  # relative shift between lines, so that intervals don't overlap
ENTRY = 1.75  # width of a legend entry in inches
Size = tuple[float, float]  # width and height in inches


def run_panels(
    shown: pd.Series | pd.DataFrame, models: Labels, methods: Labels, panel: Size, margin: Size
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """One panel per model and method with numbers, with shared axes; each model starts a new line of panels.

    Args:
        shown: numbers, with an index that starts with model and method.
        panel, margin: size of a panel, and of what surrounds the panels.
    """
    scored = set(zip(shown.index.get_level_values(0), shown.index.get_level_values(1), strict=True))
    columns = min(WIDEST, len(methods))
    lines = []
    for model in models:
        runs = [(model, method) for method in methods if (model, method) in scored]
        lines += [runs[start : start + columns] for start in range(0, len(runs), columns)]
    size = (margin[0] + panel[0] * columns, margin[1] + len(lines) * panel[1])
    figure, panels = plt.subplots(
        len(lines), columns, figsize=size, squeeze=False, sharex=True, sharey=True
    )
    found, lowest = {}, {}
    for line, runs in zip(panels, lines, strict=True):
        found |= dict(zip(runs, line, strict=False))
        lowest |= dict(enumerate(line[: len(runs)]))
        for axes in line[len(runs) :]:
            axes.axis("off")
    for axes in lowest.values():
        axes.xaxis.set_tick_params(labelbottom=True)  # the panel below may be missing
    return figure, found


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label rows at 0, 1, ... from the top down, with grid lines across them only."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")


def line_with_intervals(
    axes: Axes,
    rows: pd.DataFrame,
    over: str,
    columns: Sequence[str],
    style: Mapping[str, str],
    place: int,
    places: int,
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
    axes.plot(
        means.index * shift,
        means,
        color=style["colour"],
        linewidth=1.2,
        linestyle=style.get("line", "-"),
    )
    look = {"fmt": style["marker"], "color": style["colour"], "label": style["label"]}
    whiskers = [value - low, high - value]
    axes.errorbar(
        rows[over] * shift, value, whiskers, **look, markersize=4.5, elinewidth=0.9, capsize=2
    )


def image_axis(axes: Axes, numbers: Iterable[float]) -> None:
    """Logarithmic axis of numbers of images, with ticks at the given numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(numbers), [f"{round(number):,}" for number in numbers])
    axes.set_xlim(min(numbers) / 1.3, max(numbers) * 1.3)


def method_legend(figure: Figure, axes: Axes) -> None:
    """One legend for the lines of `axes`, above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=max(1, int(figure.get_figwidth() / ENTRY)),
    )
