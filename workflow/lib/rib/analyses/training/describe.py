"""Training of all runs by epoch: a table, and curves of one model."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
How fine-tuning of one model went: cross-entropy and accuracy on the target per epoch, means over
the images as they are trained on. A curve that ends flat and high learned little, so that its RI
says more about the learning rate than about robustness. Merges are not trained and have none.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake a table of trainings by epoch, and a figure of one model."""
    return Analysis(
        inputs={
            "histories": [paths.checkpoint("history.csv", run) for run in paths.trained_runs],
            "fit": paths.table("fit"),
        },
        makes=["training.csv"],
        files={"Training history by epoch": ["training.csv"]},
        figures={
            "training": Figure(
                question="trust",
                caption=CAPTION,
                inputs={"training": paths.table("training")},
                params={
                    **labels.one_model,
                    "methods": {
                        name: style
                        for name, style in labels.method_styles.items()
                        if grid.methods[name].trains
                    },
                    "targets": labels.targets,
                },
            )
        },
    )
