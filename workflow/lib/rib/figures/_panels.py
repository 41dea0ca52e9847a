"""Panels, named rows and lines over numbers of images, which several figures share."""

import math
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rib.figures import Labels, Style

WIDEST = 4  # maximum number of panel columns
DODGE = 0.05  # relative shift between lines, to separate their intervals
LEGEND_ENTRY = 1.75  # width of a legend entry in inches
Size = tuple[float, float]  # width and height in inches


def run_panels(
    shown_rows: pd.Series | pd.DataFrame, models: Labels, methods: Labels, panel: Size, margin: Size
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """One panel per model and method with numbers, with shared axes.

    Each model starts a new row of panels. Its methods fill few rows about equally: five are three
    and two, not four and one.

    Args:
        shown_rows: numbers, with an index that starts with model and method.
        models, methods: labels, {"ft": "FT"}.
        panel, margin: width and height in inches of a panel, and of the space around the panels.

    Returns:
        The figure, and the panels by model and method, such as {("lite0", "ft"): Axes}.
    """
    rows_of_model = math.ceil(len(methods) / WIDEST)
    columns = math.ceil(len(methods) / rows_of_model)
    rows_of_runs = _rows_of_runs(shown_rows, models, methods, columns)
    panel_width, panel_height = panel
    margin_width, margin_height = margin
    width = margin_width + panel_width * columns
    height = margin_height + len(rows_of_runs) * panel_height
    figure, grid = plt.subplots(
        len(rows_of_runs),
        columns,
        figsize=(width, height),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    panels = {}
    lowest_panels = {}  # by column
    for row_of_panels, runs in zip(grid, rows_of_runs, strict=True):
        for column, axes in enumerate(row_of_panels):
            if column < len(runs):
                panels[runs[column]] = axes
                lowest_panels[column] = axes
            else:
                axes.axis("off")
    for column, axes in lowest_panels.items():
        axes.xaxis.set_tick_params(labelbottom=True)  # this panel may have none below
        if axes is not grid[-1, column]:
            # Labels lie where panels are missing, so rows need not move apart for them.
            axes.xaxis.set_in_layout(False)
    return figure, panels


def _rows_of_runs(
    shown_rows: pd.Series | pd.DataFrame, models: Labels, methods: Labels, columns: int
) -> list[list[tuple[str, str]]]:
    """[[("lite0", "ft"), ("lite0", "lora")], ...]: pairs with numbers, by row of panels."""
    models_with_numbers = shown_rows.index.get_level_values(0)
    methods_with_numbers = shown_rows.index.get_level_values(1)
    runs_with_numbers = set(zip(models_with_numbers, methods_with_numbers, strict=True))
    rows = []
    for model in models:
        runs = [(model, method) for method in methods if (model, method) in runs_with_numbers]
        for start in range(0, len(runs), columns):
            rows.append(runs[start : start + columns])
    return rows


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label rows at 0, 1, ... from the top down, with vertical grid lines only."""
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
    style: Style,
    index: int,
    lines: int,
) -> None:
    """Draw a line through means, and points with confidence intervals.

    Args:
        rows: sorted by `over`; each row is a point, and the line goes through the mean of points
            with equal `over`.
        over: column of the number of images, above 0.
        columns: columns of the point and its lower and upper confidence limits.
        style: label, colour and marker; `line` if it is not solid.
        index, lines: index of the line among the lines on the axes, and their number.
    """
    places_from_middle = index - (lines - 1) / 2  # 0 for the middle line
    shift = (1 + DODGE) ** places_from_middle  # a factor, since the axis is logarithmic
    heights, low, high = (rows[column] for column in columns)
    means = heights.groupby(rows[over]).mean()
    axes.plot(
        means.index * shift,
        means,
        color=style["colour"],
        linewidth=1.2,
        linestyle=style.get("line", "-"),
    )
    axes.errorbar(
        rows[over] * shift,
        heights,
        [heights - low, high - heights],
        fmt=style["marker"],
        color=style["colour"],
        label=style["label"],
        markersize=4.5,
        elinewidth=0.9,
        capsize=2,
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
        ncols=max(1, int(figure.get_figwidth() / LEGEND_ENTRY)),
    )
