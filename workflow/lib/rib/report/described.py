"""The analyses of a grid, as `describe` in their files declares them. No pandas, no plots."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import get_args

import rib.analyses
from rib.base.errors import UserError
from rib.config.analysis import QUESTIONS, Analysis, Form
from rib.config.grid import Grid
from rib.config.labels import GridLabels
from rib.config.messages import known_name
from rib.config.paths import Paths


def described_analyses(
    grid: Grid, paths: Paths, choice: str | Sequence[str]
) -> dict[str, Analysis]:
    """Tables and figures of each analysis for a grid, by the name of its file in rib.analyses.

    Analyses with nothing to show are left out, and all figures if no run can be shown. An analysis
    on demand that is not chosen gets a separate folder: making it leaves the page unchanged.

    Args:
        choice: config's `analyses`: `all`, or names of analyses on demand.

    Raises:
        UserError: An analysis is incomplete (such as a figure without caption), makes a file as
            another does, or is in `choice` but not on demand.
    """
    labels = GridLabels(grid)
    analyses = {}
    for module in pkgutil.iter_modules(rib.analyses.__path__):
        name = module.name
        file = importlib.import_module(f"rib.analyses.{name}")
        analysis = _described(file, name, grid, paths, labels)
        if analysis is None:
            continue
        own_paths = paths
        if analysis.on_demand and not _is_chosen(name, analysis, choice):
            own_paths = Paths(grid, report=f"{paths.report}/{name}")
            analysis = _described(file, name, grid, own_paths, labels)
            assert analysis is not None  # it wasn't None before either
        _refuse_incomplete(file, name, analysis)
        if not labels.has_figures:
            analysis = replace(analysis, figures={})
        analyses[name] = replace(analysis, folder=own_paths.report)
    _refuse_unknown(analyses, choice)
    _refuse_equal_names(analyses)
    return analyses


def _described(
    file: ModuleType, name: str, grid: Grid, paths: Paths, labels: GridLabels
) -> Analysis | None:
    """Tables and figures that a file's `describe` declares; None if it has nothing to show.

    A wrong argument there becomes a UserError that names the file.
    """
    try:
        analysis: Analysis | None = file.describe(grid, paths, labels)
    except TypeError as error:  # for example a Figure without caption
        raise UserError(f"rib/analyses/{name}.py, describe: {error}; correct it.") from error
    return analysis


def _refuse_incomplete(file: ModuleType, name: str, analysis: Analysis) -> None:
    """Raise a UserError if a table, caption or function of an analysis is missing.

    It fails now rather than after the trainings.
    """
    where = f"rib/analyses/{name}.py"
    if analysis.makes and not hasattr(file, "tables"):
        raise UserError(f"{where} makes files, but has no function tables; add it.")
    for table_name, table in analysis.tables.items():
        of_table = f"{where}, table '{table_name}'"
        if not analysis.of_metrics and f"{table_name}.csv" not in analysis.makes:
            raise UserError(
                f"{where}: describe shows the table '{table_name}', but {table_name}.csv is not "
                "among what it makes; add it."
            )
        if not table.note.strip():
            raise UserError(f"{of_table} has no note; say what it shows.")
        known_name(table.question, QUESTIONS, "question", of_table)
        for column in table.columns:
            if column.form is not None:
                known_name(column.form, get_args(Form), "form", f"{of_table}, {column.value}")
    for figure_name, figure in analysis.figures.items():
        of_figure = f"{where}, figure '{figure_name}'"
        if not figure.caption.strip():
            raise UserError(f"{of_figure} has no caption; say how to read it.")
        known_name(figure.question, QUESTIONS, "question", of_figure)
        draw = getattr(file, f"draw_{figure_name}", None)
        if draw is None:
            raise UserError(f"{of_figure}: there is no function draw_{figure_name}; add it.")
        arguments = {
            *figure.inputs,
            *figure.params,
            *(["underfitted"] if figure.marks_runs else []),
        }
        try:
            inspect.signature(draw).bind(**dict.fromkeys(arguments))
        except TypeError as error:
            raise UserError(
                f"{of_figure}: draw_{figure_name} is called with its inputs and params, {error}; "
                "give both the same names."
            ) from error


def _is_chosen(name: str, analysis: Analysis, choice: str | Sequence[str]) -> bool:
    """Whether config's `analyses` (`choice`) makes an analysis part of the run.

    An analysis without tables on the page, such as `published`, is made only as a target.
    """
    return bool(analysis.tables) and (choice == "all" or name in choice)


def _refuse_unknown(analyses: Mapping[str, Analysis], choice: str | Sequence[str]) -> None:
    """Raise a UserError if `choice`, such as ["stir"], names an analysis that isn't on demand."""
    if choice == "all":
        return
    on_demand = [
        name for name, analysis in analyses.items() if analysis.on_demand and analysis.tables
    ]
    for name in choice:
        if name not in on_demand:
            known_names = ", ".join(on_demand) or "none"
            raise UserError(f"config, analyses: unknown '{name}'; known are {known_names}.")


def _refuse_equal_names(analyses: Mapping[str, Analysis]) -> None:
    """Raise a UserError if two analyses make a file of the same name."""
    maker: dict[str, str] = {}
    for name, analysis in analyses.items():
        for made in (*analysis.makes, *(f"{figure}.png" for figure in analysis.figures)):
            if made in maker:
                raise UserError(
                    f"rib/analyses/{name}.py and {maker[made]}.py both make {made}; rename one."
                )
            maker[made] = name


def analyses_of_page(analyses: Mapping[str, Analysis], paths: Paths) -> dict[str, Analysis]:
    """Analyses, by name, whose tables and figures are on the page, not in separate folders."""
    return {
        name: analysis for name, analysis in analyses.items() if analysis.folder == paths.report
    }
