"""Calibration error before and after fine-tuning, from the table of `samples`."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
Expected calibration error on each dataset before (open) and after (filled) fine-tuning: the
distance between confidence and accuracy, in percent; 0 is best. Values are means over seeds and the
targets other than the dataset. Ticks are the floors: the mean error of a perfectly calibrated model
with as many images and the same confidences. A difference no larger than the difference of the
floors means nothing. A larger one need not be significant: there are no intervals.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake the figure calibration, of all models and methods."""
    return Analysis(
        figures={
            "calibration": Figure(
                question="trust",
                caption=CAPTION,
                inputs={"samples": paths.table("samples")},
                params={
                    "models": labels.models,
                    "methods": labels.methods,
                    "datasets": labels.datasets,
                },
                marks_runs=True,
            )
        }
    )
