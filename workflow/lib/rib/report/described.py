"""The analyses of a grid, as their files describe.py declare them. No pandas, no plots."""

import ast
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import get_args

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import QUESTIONS, Analysis, Figure, Form
from rib.schema.messages import known_name

FOLDER = LIBRARY / "analyses"


def described_analyses(
    grid: Grid, paths: Paths, choice: str | Sequence[str]
) -> dict[str, Analysis]:
    """Tables and figures of each analysis for a grid, by the name of its folder in rib.analyses.

    Analyses with nothing to show are left out, and all figures if no run can be shown. An analysis
    on demand that is not chosen gets a separate folder: making it leaves the page unchanged.

    Args:
        choice: config's `analyses`: `all`, or names of analyses on demand.

    Raises:
        UserError: An analysis is incomplete (such as a figure without caption), makes a file as
            another does, or is in `choice` but not on demand.
    """
    # No mean over targets has targets in distribution: only what asks for every target gets them.
    grid_of_ood = grid.of_ood_targets
    paths_of_ood = Paths(grid_of_ood, report=paths.report)
    labels_of_all = GridLabels(grid)
    labels_of_ood = GridLabels(grid_of_ood)
    analyses = {}
    for file in sorted(FOLDER.glob("*/describe.py")):
        name = file.parent.name
        module = importlib.import_module(f"rib.analyses.{name}.describe")
        described_grid = grid_of_ood
        own_paths = paths_of_ood
        labels = labels_of_ood
        if getattr(module, "EVERY_TARGET", False):
            described_grid = grid
            own_paths = paths
            labels = labels_of_all
        analysis = _described(module, name, described_grid, own_paths, labels)
        if analysis is None:
            continue
        if analysis.on_demand and not _is_chosen(name, analysis, choice):
            own_paths = Paths(described_grid, report=f"{paths.report}/{name}")
            analysis = _described(module, name, described_grid, own_paths, labels)
            assert analysis is not None  # it wasn't None before either
        _refuse_incomplete(file.parent, analysis)
        if not labels.has_figures:
            analysis = replace(analysis, figures={})
        analyses[name] = replace(analysis, folder=own_paths.report)
    _refuse_unknown(analyses, choice)
    _refuse_equal_names(analyses)
    return analyses


def _described(
    module: ModuleType, name: str, grid: Grid, paths: Paths, labels: GridLabels
) -> Analysis | None:
    """Tables and figures that an analysis declares; None if it has nothing to show.

    A wrong argument there becomes a UserError that names the file.
    """
    try:
        analysis: Analysis | None = module.describe(grid, paths, labels)
    except TypeError as error:  # for example a Figure without caption
        raise UserError(f"rib/analyses/{name}/describe.py: {error}; correct it.") from error
    return analysis


def _refuse_incomplete(folder: Path, analysis: Analysis) -> None:
    """Raise a UserError if a table, caption or function of an analysis is missing.

    It fails now rather than after the trainings.
    """
    where = f"rib/analyses/{folder.name}"
    if analysis.makes and "tables" not in _functions(folder / "tables.py"):
        raise UserError(f"{where} makes files, but has no function tables in tables.py; add it.")
    for table_name, table in analysis.tables.items():
        of_table = f"{where}/describe.py, table '{table_name}'"
        if not analysis.of_metrics and f"{table_name}.csv" not in analysis.makes:
            raise UserError(
                f"{where}/describe.py shows the table '{table_name}', but {table_name}.csv is not "
                "among what it makes; add it."
            )
        if not table.note.strip():
            raise UserError(f"{of_table} has no note; say what it shows.")
        known_name(table.question, QUESTIONS, "question", of_table)
        for column in table.columns:
            if column.form is not None:
                known_name(column.form, get_args(Form), "form", f"{of_table}, {column.value}")
    drawing = _functions(folder / "figure.py") if analysis.figures else {}
    for figure_name, figure in analysis.figures.items():
        of_figure = f"{where}/describe.py, figure '{figure_name}'"
        if not figure.caption.strip():
            raise UserError(f"{of_figure} has no caption; say how to read it.")
        known_name(figure.question, QUESTIONS, "question", of_figure)
        if f"draw_{figure_name}" not in drawing:
            raise UserError(f"{of_figure}: figure.py has no function draw_{figure_name}; add it.")
        _refuse_other_arguments(drawing[f"draw_{figure_name}"], figure, of_figure)


def _functions(file: Path) -> dict[str, ast.FunctionDef]:
    """Functions of a file by name, {"draw_cost": ...}; without importing it, which takes seconds.

    A file that doesn't exist has none.
    """
    if not file.is_file():
        return {}
    module = ast.parse(file.read_text(encoding="utf-8"), file)
    return {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}


def _refuse_other_arguments(draw: ast.FunctionDef, figure: Figure, of_figure: str) -> None:
    """Raise a UserError if a function that draws does not take the figure's inputs and params."""
    given = {*figure.inputs, *figure.params}
    if figure.marks_runs:
        given.add("underfitted")
    tables = [argument.arg for argument in draw.args.args]
    number_required = len(tables) - len(draw.args.defaults)
    required = set(tables[:number_required])
    optional = set(tables[number_required:])
    for argument, default in zip(draw.args.kwonlyargs, draw.args.kw_defaults, strict=True):
        (required if default is None else optional).add(argument.arg)
    for name in sorted(required - given):
        raise UserError(
            f"{of_figure}: {draw.name} needs '{name}', which it isn't given; correct it."
        )
    for name in sorted(given - required - optional):
        raise UserError(f"{of_figure}: {draw.name} has no argument '{name}'; correct it.")


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
                    f"rib/analyses/{name} and {maker[made]} both make {made}; rename one."
                )
            maker[made] = name


def analyses_of_page(analyses: Mapping[str, Analysis], paths: Paths) -> dict[str, Analysis]:
    """Analyses, by name, whose tables and figures are on the page, not in separate folders."""
    return {
        name: analysis for name, analysis in analyses.items() if analysis.folder == paths.report
    }
