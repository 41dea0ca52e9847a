"""Accuracies compared with published ones: of pretrained models, and of fine-tuned ones.

The numbers are in tables of the catalogue (rib.catalog.published).
"""

from collections.abc import Iterable
from typing import Any

from rib.analyses.published.stated import stated_accuracies, stated_methods
from rib.grid.evaluation_groups import groups_of
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis

# Runs that are compared with papers are on targets in distribution.
EVERY_TARGET = True


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake published.csv and published_methods.csv, on demand.

    The latter is only made if a target in distribution is one that papers fine-tune on.
    """
    accuracies = stated_accuracies(grid)
    rows: list[str] = []
    for stated in accuracies:
        pretrained = paths.pretrained_runs[stated["model"]]
        rows.extend(paths.rows([pretrained], groups=groups_of(grid, stated["dataset"])))
    rows = list(dict.fromkeys(rows))
    inputs = {"rows": rows, "manifests": paths.manifests(rows)}
    params: dict[str, Any] = {
        "published": accuracies,
        "expected_images": {
            name: dataset.images for name, dataset in grid.datasets.items() if dataset.images
        },
    }
    makes = ["published.csv"]
    methods = stated_methods(grid)
    if methods:
        inputs["rows_of_runs"] = _rows_of_runs(grid, paths, methods)
        params["methods"] = methods
        params["tests"] = {name: grid.catalog.datasets[name].test for name in grid.id_targets}
        params["ood_datasets"] = list(grid.ood)
        makes.append("published_methods.csv")
    return Analysis(inputs=inputs, params=params, makes=makes, on_demand=True)


def _rows_of_runs(grid: Grid, paths: Paths, methods: Iterable[dict[str, Any]]) -> list[str]:
    """Files with the rows of each run beside which a published accuracy stands."""
    rows: list[str] = []
    for stated in methods:
        runs = [
            run
            for run in grid.runs()
            if run.model == stated["model"]
            and run.method in stated["runs"]
            and run.target == stated["target"]
        ]
        pretrained = paths.pretrained_runs[stated["model"]]
        rows.extend(paths.rows([pretrained, *runs], groups=groups_of(grid, stated["dataset"])))
    return list(dict.fromkeys(rows))
