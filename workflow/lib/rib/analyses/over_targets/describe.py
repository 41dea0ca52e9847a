"""Accuracy of merges over targets on datasets that none of their parents was trained on.

Such a merge has no target, and its parents saw several, so its gain is not an RI.
"""

from rib.base.params import to_params
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Table
from rib.schema.run import PRETRAINED
from rib.statistics.statistics_settings import fit_rule

MERGES_OVER_TARGETS = Table(
    title="Merges over targets",
    question="survived",
    note=(
        "Mean accuracy in percent, before and after, on the datasets that are no targets of the "
        "run and share no source images with one, so that none of the merged networks was trained "
        "on them; difference in percentage points. There is one merge for each seed, and the "
        "confidence interval is over objects, for these networks. The merges have no target, so "
        "this is no RI and is not to be ranked beside mRI."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Seed", "seed", form="text"),
        Column("Datasets", "datasets"),
        Column("Images", "images"),
        Column("Before (%)", "before", form="number"),
        Column("After (%)", "after", form="number"),
        Column("Difference", "difference", form="signed", interval=("ci_low", "ci_high")),
    ],
)


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the table of runs merged over targets; None without any.

    They are scored on datasets that are no targets.
    """
    if not grid.over_targets:
        return None
    before = paths.rows(paths.pretrained_runs.values(), groups=list(paths.groups_not_trained_on))
    rows = [*before, *paths.rows_over_targets()]
    return Analysis(
        inputs={
            "rows": rows,
            "indexes": paths.indexes(),
            "evaluations": paths.manifests(rows),
        },
        params={
            "methods": [PRETRAINED, *grid.over_targets],
            "datasets": grid.not_trained_on,
            "fit": to_params(fit_rule(grid)),
            **grid.config["statistics"],
        },
        makes=["merges_over_targets.csv"],
        tables={"merges_over_targets": MERGES_OVER_TARGETS},
    )
