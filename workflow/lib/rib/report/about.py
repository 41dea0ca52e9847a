"""Descriptions of a grid for pages and model cards. No pandas, no plots."""

from collections.abc import Mapping
from dataclasses import asdict
from os.path import relpath
from pathlib import Path

from rib.grid.grid import Grid
from rib.grid.grid_as_config import as_config, resolved
from rib.grid.labels import GridLabels
from rib.grid.leaks import sharing_targets, source_groups
from rib.grid.paths import Paths
from rib.report.report_settings import (
    DatasetDescription,
    FamilyDescription,
    GridDescription,
    Look,
    MethodDescription,
    ModelDescription,
    PageSettings,
    PreviewDescription,
    ReadDatasetDescription,
    ShownFigure,
    ShownTable,
    SweepDescription,
)
from rib.schema.analysis import Analysis
from rib.schema.entries import Dataset
from rib.schema.fields import stated
from rib.statistics.conditions import conditions_of


def describe_grid(grid: Grid) -> GridDescription:
    """Everything that pages and model cards say about a grid, with labels of its choices."""
    return GridDescription(
        config=resolved(grid),
        config_file={**as_config(grid), "catalog": grid.config["catalog"]},
        family=FamilyDescription(
            title=grid.family.title,
            description=grid.family.description,
            limits=grid.family.limits,
        ),
        targets=list(grid.targets),
        id_targets=tuple(grid.id_targets),
        ood=list(grid.ood),
        sizes=list(grid.sizes),
        shown_size=grid.shown_size,
        conditions=conditions_of(grid),
        accuracy_on_target=GridLabels(grid).accuracy_on_target,
        datasets={
            name: DatasetDescription(
                label=dataset.label, licence=dataset.licence, origin=dataset.origin
            )
            for name, dataset in grid.datasets.items()
        },
        read={dataset.name: _read_dataset(dataset) for dataset in grid.datasets_read()},
        models={
            name: ModelDescription(
                label=model.label,
                architecture=model.architecture,
                pretraining=model.pretraining,
                licence=model.licence,
                record=model.record,
            )
            for name, model in grid.models.items()
        },
        methods={
            name: MethodDescription(
                label=method.label,
                settings=method.settings,
                source=method.source,
                can_fit=method.can_fit,
                reference=method.reference,
            )
            for name, method in grid.methods.items()
        },
        fit_threshold=grid.family.fit_threshold,
        source_groups=source_groups(grid),
        sharing_targets=sharing_targets(grid),
        sweeps=_sweeps(grid),
    )


def _read_dataset(dataset: Dataset) -> ReadDatasetDescription:
    """Facts for the page on a dataset that jobs read: label, licence, origin and terms."""
    return ReadDatasetDescription(
        label=dataset.label,
        licence=dataset.licence,
        origin=dataset.origin,
        publishable=bool(dataset.publishable),
        tuning=stated(dataset.tuning) if dataset.tuning else None,
    )


def _sweeps(grid: Grid) -> dict[str, SweepDescription]:
    """Methods run with several values of a setting, of which config's `select` chooses one.

    For example {"ft": SweepDescription("FT", ["ft-lr0.1", "ft-lr0.01"])}.
    """
    if not grid.selection:
        return {}
    return {
        name: SweepDescription(label=grid.catalog.methods[name].label, variants=list(variants))
        for name, variants in grid.selection.variants.items()
    }


def page_settings(
    grid: Grid,
    paths: Paths,
    analyses: Mapping[str, Analysis],
    about: GridDescription,
    code: str,
    partial: PreviewDescription | None = None,
) -> PageSettings:
    """Everything that a grid's page shows, with paths of the files that it reads.

    Args:
        analyses: of the page, by name, in its order: {"cost": Analysis(...)}.
        about: from `describe_grid`.
        code: digest of the code that writes the page.
        partial: progress of the grid, for a preview.
    """
    labels = GridLabels(grid)
    tables = {}
    figures = {}
    files = {}
    for analysis in analyses.values():
        for table_name, table in analysis.tables.items():
            path = paths.table(table_name)
            tables[table_name] = ShownTable(
                path=Path(path),
                link=relpath(path, paths.report),
                title=table.title,
                question=table.question,
                note=table.note,
                open=table.open,
                columns=[asdict(column) for column in table.columns],
            )
        for figure_name, figure in analysis.figures.items():
            path = paths.figure(figure_name, "png")
            figures[figure_name] = ShownFigure(
                path=Path(path),
                link=relpath(path, paths.report).removesuffix(".png"),
                question=figure.question,
                caption=figure.caption,
            )
        for title, names in analysis.files.items():
            files[title] = [f"tables/{file}" for file in names]
    fits = [Path(paths.table("fit"))]
    if grid.id_targets:
        fits.append(Path(paths.table("id_targets_fit")))
    geometry = paths.first_geometry
    return PageSettings(
        about=about,
        tables=tables,
        figures=figures,
        files=files,
        fits=fits,
        prepared={
            dataset.label: Path(paths.prepared("manifest.json", dataset.name, geometry))
            for dataset in grid.datasets_read()
        },
        looks={
            name: Look(colour=style["colour"], marker=str(style["marker"]))
            for name, style in labels.method_styles.items()
        },
        averages={name: parent for name, (parent, _) in labels.averages.items()},
        coefficients={name: alpha for name, (_, alpha) in labels.averages.items()},
        upstream=[path for stage in paths.records().values() for path in stage],
        partial=partial,
        code=code,
    )
