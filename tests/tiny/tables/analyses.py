"""What the files of analyses declare, of grids that have all figures between them."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from rib.base.plugins import LIBRARY
from rib.grid.figure_settings import FigureSettings
from rib.report.readme import described_figures
from rib.report.report_settings import ShownTable
from rib.schema.analysis import Figure, Table
from tiny.projects.grids import project_catalog


@cache
def figures() -> dict[str, tuple[str, Figure]]:
    """Each figure with the name of its analysis, by its own name."""
    return described_figures(project_catalog())


def drawing_module(figure: str) -> str:
    """The dotted name of the module that draws a figure."""
    (file,) = [
        file
        for file in LIBRARY.glob("analyses/*/figure.py")
        if f"\ndef draw_{figure}(" in file.read_text(encoding="utf-8")
    ]
    return f"rib.analyses.{file.parent.name}.figure"


def figure_settings(figure: str, params: Mapping[str, Any], **choices: Any) -> FigureSettings:
    """Settings of a figure, which shows the size `all` of a grid with no other one.

    A figure marks runs by itself if the function that draws it has the argument `underfitted`.

    Args:
        params: keyword arguments of this function.
        choices: fields with other values, such as `size`.
    """
    module = drawing_module(figure)
    draw = getattr(importlib.import_module(module), f"draw_{figure}")
    usual = {
        "every_size": False,
        "without_underfitted": False,
        "marks_runs": "underfitted" in inspect.signature(draw).parameters,
        "size": "all",
        "sizes": ["all"],
    }
    return FigureSettings(module=module, params=dict(params), **{**usual, **choices})


def shown(file: Path, table: Table) -> ShownTable:
    """A table as settings of the page have it."""
    return ShownTable(
        path=file,
        link=f"tables/{file.name}",
        title=table.title,
        question=table.question,
        note=table.note,
        open=table.open,
        columns=[asdict(column) for column in table.columns],
    )
