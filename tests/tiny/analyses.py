"""What the files of analyses declare, of grids that have all figures between them."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from rib.config.analysis import Figure, Table
from rib.config.figure_settings import FigureSettings
from rib.report.readme import described_figures
from rib.report.settings import ShownTable
from tiny.grids import project_catalog


@cache
def figures() -> dict[str, tuple[str, Figure]]:
    """Each figure with the name of its analysis, by its own name."""
    return described_figures(project_catalog())


def caption_of(figure: str) -> str:
    """The caption of a figure, in one line."""
    _, declared = figures()[figure]
    return " ".join(declared.caption.split())


def settings_of_figure(figure: str, params: Mapping[str, Any], **settings) -> FigureSettings:
    """Settings of a figure, with the marks that its analysis declares.

    Args:
        params: arguments of the function that draws it.
        settings: such as `size` and `sizes`.
    """
    analysis, declared = figures()[figure]
    return FigureSettings(
        module=f"rib.analyses.{analysis}",
        params=dict(params),
        every_size=declared.every_size,
        finished_only=declared.finished_only,
        marks_runs=declared.marks_runs,
        **settings,
    )


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
