"""Accuracy on the target against mRI, one panel per model, with the pretrained model as origin.

With datasets in distribution, a second panel below has the change of accuracy on them.
"""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure
from rib.statistics.statistics_settings import in_distribution_datasets

CAPTION = """\
Accuracy on the target (across) and mRI (up), means over targets. RI is the mean change of accuracy
over the out-of-distribution datasets other than the target; datasets in distribution do not count.
The star is the pretrained model; above 0 robustness was gained. Compare methods at equal accuracy
on the target, where the higher point is better. A dotted line joins the learning rates of a method,
which stand beside its points. Whiskers are over objects and, from three seeds on,
trainings; targets are fixed and, with fewer seeds, the trained networks.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake the figure tradeoff, of all models and methods.

    A curve is a method with averages of pretrained and fine-tuned weights at several alphas (shares
    of the fine-tuned ones). A line joins single averages only if there is no curve. A dotted line
    joins the learning rates of a method.
    """
    inputs = {name: paths.table(name) for name in ("mri", "curves")}
    if in_distribution_datasets(grid):
        inputs["in_distribution"] = paths.table("in_distribution")
    averages = {} if labels.curves else labels.averages
    return Analysis(
        figures={
            "tradeoff": Figure(
                question="survived",
                caption=CAPTION,
                inputs=inputs,
                params={
                    "models": labels.models,
                    "methods": {
                        **labels.method_styles,
                        **{
                            name: {
                                "label": grid.methods[name].label,
                                **dict(grid.methods[name].style),
                            }
                            for name in labels.curves
                        },
                    },
                    "confidence": labels.confidence,
                    "averages": {
                        name: list(parent_and_alpha) for name, parent_and_alpha in averages.items()
                    },
                    "rates": labels.rates,
                    "accuracy": labels.accuracy_on_target,
                },
            )
        }
    )
