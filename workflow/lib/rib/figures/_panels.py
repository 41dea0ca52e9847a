"""Helpers that several figures share: a panel per run, and rows of a panel."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.figures import Labels

WIDEST = 4  # maximum number of panel columns


def run_panels(
    shown: pd.Series | pd.DataFrame,
    models: Labels,
    methods: Labels,
    panel: tuple[float, float],
    margin: tuple[float, float],
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """One panel per model and method with numbers, with shared axes; each model starts a new line of panels.

    Args:
        shown: numbers, with an index that starts with model and method.
        panel: width and height of a panel, in inches.
        margin: width and height of what surrounds the panels, in inches.
    """
    scored = set(zip(shown.index.get_level_values(0), shown.index.get_level_values(1), strict=True))
    columns = min(WIDEST, len(methods))
    lines = []
    for model in models:
        runs = [(model, method) for method in methods if (model, method) in scored]
        lines += [runs[start : start + columns] for start in range(0, len(runs), columns)]
    size = (margin[0] + panel[0] * columns, margin[1] + len(lines) * panel[1])
    figure, panels = plt.subplots(len(lines), columns, figsize=size, squeeze=False, sharex=True, sharey=True)
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
