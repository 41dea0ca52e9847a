"""Effective robustness: accuracy out of distribution beyond the line of baseline models.

Source: Taori et al. 2020 (arXiv 2007.00644), whose scatter plots have these axes.
"""

from rib.analyses.effective_robustness.baselines import baseline_accuracies
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table

EFFECTIVE_ROBUSTNESS = Table(
    title="Effective robustness",
    question="survived",
    note=(
        "Out-of-distribution accuracy minus the prediction of the baseline line at the same "
        "in-distribution accuracy, in percentage points. The confidence interval is that of the "
        "line, which is extrapolated beyond the accuracies of the baseline models."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size", form="text"),
        Column("Seed", "seed", form="text"),
        Column("Dataset", "dataset"),
        Column("Before", "rho_before", form="signed"),
        Column("After", "rho_after", form="signed", interval=("low", "high")),
        Column("Change", "change", form="signed"),
        Column("Extrapolated", "extrapolated", form="text"),
    ],
)
BASELINE_LINES = Table(
    title="Lines of the baseline models",
    question="trust",
    note=(
        "Fitted to the logits of in- and out-of-distribution accuracies of published models that "
        "were trained only on the in-distribution training set; lowest and highest in-distribution "
        "accuracy in percent. Source: where the accuracies of its models are published, which are "
        "other models for ObjectNet and ImageNet-C."
    ),
    columns=[
        Column("Dataset", "dataset"),
        Column("Models", "models"),
        Column("Slope", "slope", form="number"),
        Column("Intercept", "intercept", form="number"),
        Column("Correlation", "correlation", form="number"),
        Column("Lowest accuracy", "lowest"),
        Column("Highest accuracy", "highest"),
        Column("Source", "source"),
    ],
)
CAPTION = """\
Accuracy out of distribution against accuracy in distribution, both on a logit scale, from before
(open) to after (filled) fine-tuning on each target. Grey: published models trained on the
in-distribution training set alone (baseline_lines.csv names their source), and the line fitted to
them with its confidence interval, dashed beyond them. Effective robustness is the height above the
line, so an arrow along the line loses accuracy alone. Both axes are scored among the same classes.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake tables and figure of accuracy beyond baselines.

    None without baselines, or if nothing is fine-tuned on a dataset that is out of distribution.
    """
    baselines = baseline_accuracies(grid)
    if not baselines or not grid.targets:
        return None
    return Analysis(
        inputs={"accuracy": paths.table("accuracy"), "fit": paths.table("fit")},
        params={"baselines": baselines, "confidence": labels.confidence},
        makes=["effective_robustness.csv", "baseline_lines.csv"],
        tables={"effective_robustness": EFFECTIVE_ROBUSTNESS, "baseline_lines": BASELINE_LINES},
        figures={
            "effective_robustness": Figure(
                question="survived",
                caption=CAPTION,
                inputs={"robustness": paths.table("effective_robustness")},
                params={
                    "models": labels.model_styles,
                    "methods": labels.methods,
                    "confidence": labels.confidence,
                    "baselines": baselines,
                    "datasets": labels.datasets,
                },
            )
        },
    )
