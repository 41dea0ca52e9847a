"""The analyses of a grid, as their files describe them. No pandas, no plots."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace

import rib.analyses
from rib.base.errors import UserError
from rib.config.analysis import Analysis
from rib.config.grid import Grid
from rib.config.labels import GridLabels
from rib.config.paths import Paths


def described_analyses(grid: Grid, paths: Paths) -> dict[str, Analysis]:
    """What each analysis makes of a grid, by its name, that of its file in rib.analyses.

    Analyses that have nothing to show in the grid are left out, and so are all figures of a grid
    without runs that figures can show.

    Raises:
        UserError: two analyses make a table or a figure of the same name, or a table of the page is
            in none of the files that its analysis makes.
    """
    labels = GridLabels(grid)
    analyses = {}
    for module in pkgutil.iter_modules(rib.analyses.__path__):
        file = importlib.import_module(f"rib.analyses.{module.name}")
        analysis = file.describe(grid, paths, labels)
        if analysis is None:
            continue
        if not labels.has_figures:
            analysis = replace(analysis, figures={})
        analyses[module.name] = analysis
    _refuse_equal_names(analyses)
    for name, analysis in analyses.items():
        for table in analysis.tables:
            if not analysis.of_metrics and f"{table}.csv" not in analysis.makes:
                raise UserError(
                    f"rib/analyses/{name}.py: describe shows the table '{table}', but "
                    f"{table}.csv is not among what it makes; add it."
                )
    return analyses


def _refuse_equal_names(analyses: Mapping[str, Analysis]) -> None:
    maker: dict[str, str] = {}
    for name, analysis in analyses.items():
        for made in (*analysis.makes, *(f"{figure}.png" for figure in analysis.figures)):
            if made in maker:
                raise UserError(
                    f"rib/analyses/{name}.py and {maker[made]}.py both make {made}; rename one."
                )
            maker[made] = name


def chosen_analyses(
    analyses: Mapping[str, Analysis], choice: str | list[str]
) -> dict[str, Analysis]:
    """Analyses of the page: those that are always made, and those on demand that config lists.

    Args:
        choice: config's `analyses`: `all`, or names of analyses on demand.

    Raises:
        UserError: config lists one that doesn't exist, or isn't on demand.
    """
    # One without tables of the page, `published`, is a target alone.
    on_demand = [
        name for name, analysis in analyses.items() if analysis.on_demand and analysis.tables
    ]
    if choice == "all":
        chosen = on_demand
    else:
        chosen = list(choice)
        for name in chosen:
            if name not in on_demand:
                known_names = ", ".join(on_demand) or "none"
                raise UserError(f"config, analyses: unknown '{name}'; known are {known_names}.")
    return {
        name: analysis
        for name, analysis in analyses.items()
        if not analysis.on_demand or name in chosen
    }
