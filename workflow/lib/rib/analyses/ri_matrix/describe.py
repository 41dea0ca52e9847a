"""Matrix of RI: methods by targets, one panel per model, with mRI in the last column."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.leaks import sharing_targets
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
Robustness improvement (RI) of methods (rows) and targets (columns). RI is the mean change of
accuracy over the out-of-distribution datasets other than the target; datasets in distribution do
not count. Orange: gained, purple: lost. Small numbers: confidence intervals over objects, each by
itself: of many a few exclude 0 by chance; below, the fit, accuracy on training images. †:
an underfitted run. ‡: other datasets share the target's source images; gains may be recognition.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake the figure ri_matrix, with RI of all targets."""
    return Analysis(
        figures={
            "ri_matrix": Figure(
                question="survived",
                caption=CAPTION,
                inputs={"ri": paths.table("ri"), "mri": paths.table("mri")},
                params={
                    **labels.by_target,
                    "shared": sharing_targets(grid),
                    "confidence": labels.confidence,
                },
                marks_runs=True,
            )
        }
    )
