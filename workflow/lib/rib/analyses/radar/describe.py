"""Radar chart of accuracies before and after fine-tuning on one target, two lines per model.

Source: arXiv 2410.21582, radar figure (two pretraining sources, fine-tuned on ImageNet-R; before
solid, after dashed).
"""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
Accuracy of the first two models on each dataset before (solid, filled markers) and after (dashed,
open markers) fine-tuning on one target, in bold. Robustness was gained on the other datasets on
which the dashed line lies outside the solid one. There are no intervals here.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the figure radar; None without runs to show."""
    if not labels.has_figures:
        return None
    models = dict(list(labels.model_styles.items())[:2])
    return Analysis(
        figures={
            "radar": Figure(
                question="survived",
                caption=CAPTION,
                inputs={"accuracy": paths.table("accuracy")},
                params={
                    "target": labels.example_target,
                    **labels.one_method,
                    "datasets": labels.datasets,
                    "models": models,
                },
                marks_runs=True,
            )
        }
    )
