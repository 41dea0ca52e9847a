"""Explanations of each cell of RI for the page: classes that lose most, and images that flip."""

from dataclasses import asdict

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake cells.json, by which the page explains each RI (change of accuracy).

    Images are read at the first model's geometry, and shown only if their licence allows it.
    """
    if not labels.has_figures:
        return None
    runs = [run for run in grid.runs() if run.method not in labels.curves]
    first_model = next(iter(grid.models))
    return Analysis(
        inputs={
            "rows": paths.rows(runs),
            "indexes": paths.indexes(),
            "classes": paths.classes(),
        },
        params={
            "methods": list(dict.fromkeys(run.method for run in runs)),
            "ood_datasets": grid.ood,
            "size": grid.shown_size,
            "publishable": [name for name, dataset in grid.datasets.items() if dataset.publishable],
            "geometry": asdict(grid.geometry(first_model)),
            "uncropped": grid.uncropped,
        },
        makes=["cells.json"],
    )
