"""The paper's bar chart: mean out-of-distribution accuracy before and after, per model."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
Mean accuracy on the out-of-distribution datasets other than the target, before and after
fine-tuning, in percent, mean over targets. The difference between the bars of a pair is mRI.
Whiskers are bootstrap confidence intervals over objects and, from three seeds on, seeds; before and
after share objects, so judge the difference by the interval of mRI, not by overlap of whiskers.
"""
CAPTION_WITH_PAPER = """\
Mean accuracy on the out-of-distribution datasets other than the target, before and after
fine-tuning, in percent, mean over targets. The difference between the bars of a pair is mRI.
Whiskers are bootstrap confidence intervals over objects and, from three seeds on, seeds; before and
after share objects, so judge the difference by the interval of mRI, not by overlap of whiskers.
Diamonds are the paper's bars, read off to 0.3 points; its mean has ObjectNet among the targets.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the figure before_after; None without runs to show."""
    if not labels.has_figures:
        return None
    bars = paper_bars(grid, labels.example_method)
    return Analysis(
        figures={
            "before_after": Figure(
                question="survived",
                caption=CAPTION_WITH_PAPER if bars else CAPTION,
                inputs={"ood": paths.table("ood")},
                params={
                    **labels.one_method,
                    "models": labels.models,
                    "number_of_datasets": len(grid.ood),
                    "number_of_targets": len(grid.targets),
                    "confidence": labels.confidence,
                    "paper": bars,
                },
            )
        }
    )


def paper_bars(grid: Grid, method: str | None) -> dict[str, dict[str, float]]:
    """The paper's accuracies, in percent, to be drawn beside the bars of this grid's models.

    By model, before and after fine-tuning: {"net": {"before": 70.1, "after": 68.2}}.
    """
    numbers = ("ood_before", "ood_after")
    columns = ("family", "model", "method", *numbers, "source")
    bars = {}
    for row in grid.catalog.table("paper.csv", columns, numbers):
        is_of_example = row["family"] == grid.family.name and row["method"] == method
        is_of_run = grid.config["protocol"] == "paper" and row["model"] in grid.models
        if is_of_example and is_of_run:
            bars[row["model"]] = {
                "before": float(row["ood_before"]),
                "after": float(row["ood_after"]),
            }
    return bars
