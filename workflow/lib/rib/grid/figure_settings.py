"""Settings of a figure. Rules import this module, so it is not in rib.figures with Matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.base.params import Settings, Texts
from rib.schema.analysis import Figure
from rib.schema.geometry import Geometry

if TYPE_CHECKING:
    from rib.grid.grid import Grid
    from rib.grid.labels import GridLabels


class FigureSettings(Settings):
    """Everything that a figure shows, except the contents of its files."""

    module: str  # its function draw_<name> draws the figure: rib.analyses.cost.figure
    params: dict[str, Any]  # keyword arguments of this function
    # Fields of rib.schema.analysis.Figure.
    every_size: bool
    without_underfitted: bool
    marks_runs: bool
    size: str  # training subset to show, unless the figure compares sizes
    sizes: list[str]  # all training subsets; if not only `all`, the figure names the shown one
    geometry: Geometry | None = None  # of encoded images
    uncropped: Texts = ()  # datasets whose encoded images are shown without crop
    # Labels by name for `models`, `methods` and `targets`, to name underfitted runs.
    labels: dict[str, dict[str, str]] | None = None


class FiguresSettings(Settings):
    """Settings of a job that draws several figures; mappings are by figure."""

    figures: dict[str, FigureSettings]
    inputs: dict[str, dict[str, str | list[str]]]  # path or paths for each positional argument
    fit: str | None  # table of fits, for marks of runs in figures with `labels`
    code: str  # digest of the code that draws the figures


def figure_settings(
    analysis: str, figure: Figure, grid: Grid, grid_labels: GridLabels
) -> FigureSettings:
    """Everything from which a job draws a figure, except the contents of files.

    Args:
        analysis: name of the figure's analysis, such as `cost`.
        figure: as the analysis declares it.
    """
    labels = None
    if figure.of_runs:
        methods = {name: method.label for name, method in grid.methods.items()}
        labels = {**grid_labels.by_target, "methods": methods}
    return FigureSettings(
        module=f"rib.analyses.{analysis}.figure",
        params=dict(figure.params),
        every_size=figure.every_size,
        without_underfitted=figure.without_underfitted,
        marks_runs=figure.marks_runs,
        size=grid.shown_size,
        sizes=grid.sizes,
        geometry=grid.geometry(next(iter(grid.models))),
        uncropped=tuple(grid.uncropped),
        labels=labels,
    )


def folder_of_kept(log_file: Path) -> Path:
    """Folder for figures that a failing job has drawn: its log's path without `.log`.

    For logs/reports/tiny/draw_figures.log it is logs/reports/tiny/draw_figures.
    """
    return log_file.with_suffix("")
