"""Accuracy matrices, targets by datasets: one panel per model and method."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.leaks import source_groups
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
Top-1 accuracy of every run on every dataset. A row is the target that was fine-tuned on, the first
row the pretrained model; compare a column with its first cell. Outlined cells are the target
itself, under protocol paper the images trained on, and never count in RI; a double dagger marks
datasets that share the target's source images.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake the figure accuracy_matrix, of all models and methods."""
    return Analysis(
        figures={
            "accuracy_matrix": Figure(
                question="survived",
                caption=CAPTION,
                inputs={"accuracy": paths.table("accuracy")},
                params={
                    **labels.by_target,
                    "datasets": labels.datasets,
                    "source_groups": source_groups(grid),
                    "accuracy_on_target": labels.accuracy_on_target,
                },
                marks_runs=True,
            )
        }
    )
