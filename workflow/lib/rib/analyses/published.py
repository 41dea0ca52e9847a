"""Accuracies of pretrained models compared with their publishers' numbers.

The numbers are in the catalogue's published.csv.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.base.errors import UserError
from rib.base.files import table_text
from rib.config.analysis import Analysis
from rib.config.evaluation_groups import groups_of
from rib.config.obstacles import obstacle_to_comparison

if TYPE_CHECKING:
    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.statistics.inputs import Inputs

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


def tables(inputs: Inputs) -> dict[str, str]:
    """Text of published.csv by its name: each model's measured beside its published accuracy.

    Raises:
        UserError: No published accuracy fits the grid.
    """
    from rib.statistics.published import DECIMALS, compare

    if not inputs.params["published"]:
        raise UserError(
            "the catalogue's published.csv has no accuracy of these models on these datasets; "
            "choose others, or add the file to your own catalogue folder."
        )
    table = compare(inputs.paths("rows"), **inputs.params)
    return {"published.csv": table_text(table, f"%.{DECIMALS}f")}
