"""The analyses of a grid, as their files describe them. No pandas, no plots."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

import rib.analyses
from rib.base.errors import UserError
from rib.config.analysis import Analysis
from rib.config.grid import Grid
from rib.config.labels import GridLabels
from rib.config.paths import Paths


def described_analyses(
    grid: Grid, paths: Paths, choice: str | Sequence[str]
) -> dict[str, Analysis]:
    """What each analysis makes of a grid, by its name, that of its file in rib.analyses.

    Analyses that have nothing to show in the grid are left out, and so are all figures of a grid
    without runs that figures can show. An analysis on demand that is not chosen has a folder of its
    own, with the tables of metrics that it needs: its target changes nothing of the page.

    Args:
        choice: config's `analyses`: `all`, or names of analyses on demand.

    Raises:
        UserError: two analyses make a table or a figure of the same name, a table of the page is
            in none of the files that its analysis makes, or `choice` names an analysis that doesn't
            exist or isn't on demand.
    """
    labels = GridLabels(grid)
    analyses = {}
    for module in pkgutil.iter_modules(rib.analyses.__path__):
        name = module.name
        file = importlib.import_module(f"rib.analyses.{name}")
        analysis = file.describe(grid, paths, labels)
        if analysis is None:
            continue
        own_paths = paths
        if analysis.on_demand and not _is_chosen(name, analysis, choice):
            own_paths = Paths(grid, report=f"{paths.report}/{name}")
            analysis = file.describe(grid, own_paths, labels)
        if not labels.has_figures:
            analysis = replace(analysis, figures={})
        analyses[name] = replace(analysis, folder=own_paths.report)
    _refuse_unknown(analyses, choice)
    _refuse_equal_names(analyses)
    for name, analysis in analyses.items():
        for table in analysis.tables:
            if not analysis.of_metrics and f"{table}.csv" not in analysis.makes:
                raise UserError(
                    f"rib/analyses/{name}.py: describe shows the table '{table}', but "
                    f"{table}.csv is not among what it makes; add it."
                )
    return analyses


def _is_chosen(name: str, analysis: Analysis, choice: str | Sequence[str]) -> bool:
    """One without tables of the page, `published`, is a target alone."""
    return bool(analysis.tables) and (choice == "all" or name in choice)


def _refuse_unknown(analyses: Mapping[str, Analysis], choice: str | Sequence[str]) -> None:
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
    maker: dict[str, str] = {}
    for name, analysis in analyses.items():
        for made in (*analysis.makes, *(f"{figure}.png" for figure in analysis.figures)):
            if made in maker:
                raise UserError(
                    f"rib/analyses/{name}.py and {maker[made]}.py both make {made}; rename one."
                )
            maker[made] = name


def analyses_of_page(analyses: Mapping[str, Analysis], paths: Paths) -> dict[str, Analysis]:
    """Analyses whose tables and figures the page shows."""
    return {
        name: analysis for name, analysis in analyses.items() if analysis.folder == paths.report
    }
