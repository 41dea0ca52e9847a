"""Accuracies of pretrained models compared with their publishers' numbers.

The numbers are in the catalogue's published.csv.
"""

from rib.analyses.published.obstacles import obstacle_to_comparison
from rib.grid.evaluation_groups import groups_of
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis

COLUMNS = ("model", "dataset", "accuracy", "source")


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake published.csv: measured beside published accuracies, on demand."""
    stated = [
        row
        for row in grid.catalog.table("published.csv", COLUMNS, ["accuracy"])
        if row["model"] in grid.models and row["dataset"] in grid.datasets
    ]
    rows: list[str] = []
    for row in stated:
        pretrained = paths.pretrained_runs[row["model"]]
        rows.extend(paths.rows([pretrained], groups=groups_of(grid, row["dataset"])))
    return Analysis(
        inputs={"rows": list(dict.fromkeys(rows))},
        params={
            "published": [
                {
                    "model": row["model"],
                    "dataset": row["dataset"],
                    "accuracy": float(row["accuracy"]),
                    "source": row["source"],
                    "obstacle": obstacle_to_comparison(grid, row["model"], row["dataset"]),
                }
                for row in stated
            ],
            "expected_images": {
                name: dataset.images for name, dataset in grid.datasets.items() if dataset.images
            },
        },
        makes=["published.csv"],
        on_demand=True,
    )
