"""Example images of the same classes in all datasets, with the pretrained model's predictions."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
The same classes in all datasets, and what the pretrained model takes them for: solid green frame
and tick, right; dashed red frame and cross, wrong. It shows how the datasets differ, and which
errors the pretrained model makes on them.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the figure examples; None if no licence allows showing images."""
    datasets = {
        name: label for name, label in labels.datasets.items() if grid.datasets[name].publishable
    }
    if not datasets:
        return None
    model = labels.one_model["model"]
    return Analysis(
        figures={
            "examples": Figure(
                question="trust",
                caption=CAPTION,
                inputs={
                    "rows": paths.rows([paths.pretrained_runs[model]]),
                    "images": [
                        paths.prepared("manifest.json", name, paths.first_geometry)
                        for name in datasets
                    ],
                },
                params={"datasets": datasets, "model_label": labels.models[model], "objects": 8},
            )
        }
    )
