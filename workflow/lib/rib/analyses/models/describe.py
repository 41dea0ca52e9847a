"""Comparison of pretrained models that were fine-tuned with the same method."""

from rib.base.params import to_params
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table
from rib.statistics.statistics_settings import ri_statistics

MODEL_COMPARISONS = Table(
    title="Pairwise comparison of models",
    question="model",
    note=(
        "For a method, the first model minus the second, in percentage points, on the same "
        "objects: mRI (mri), and mean accuracy on the other datasets before (ood_before) and after "
        "fine-tuning (ood_after). Intervals and p as in the comparison of methods; Holm-adjusted "
        "over all pairs and measures of a method and size. Models with an underfitted run are "
        "compared before fine-tuning only."
    ),
    columns=[
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Model", "model"),
        Column("Minus", "other_model"),
        Column("Measure", "measure"),
        Column("Difference", "difference", form="signed", interval=("ci_low", "ci_high")),
        Column("p", "p", form="p"),
        Column("Holm p", "p_holm", form="p"),
    ],
)
MODEL_RANKS = Table(
    title="Ranks of models",
    question="model",
    note=(
        "Mean accuracy on the other datasets before and after fine-tuning, in percent, and ranks "
        "by these values (1 is best); the table above has tests of differences. A model with an "
        "underfitted run has no rank. Kendall's tau of before and after, from five ranked models "
        "on: 1 for the same order, -1 for the reverse. Its p is of the hypothesis that the two "
        "orders are unrelated, with models and their values fixed."
    ),
    columns=[
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Model", "model"),
        Column("OOD before (%)", "ood_before", interval=("before_low", "before_high")),
        Column("OOD after (%)", "ood_after", interval=("after_low", "after_high")),
        Column("Rank before", "rank_before", form="count"),
        Column("Rank after", "rank_after", form="count"),
        Column("Tau", "tau", form="decimals"),
        Column("p of tau", "tau_p", form="p"),
    ],
)
CAPTION = """\
Whether the pretrained models that start best also end best. Left: mean accuracy on the
out-of-distribution datasets other than the target, after against before fine-tuning; on the dashed
line nothing changed. Right: ranks before and after. Kendall's tau, from five models on: 1 for the
same order, -1 for the reverse; p is for unrelated orders, models fixed. Ranks are of the values
drawn: judge two models by the table of paired comparisons, not by overlap of whiskers.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake a comparison of pretrained models; None with one model."""
    if len(grid.models) == 1 or not labels.has_figures:
        return None
    return Analysis(
        inputs={"counts": paths.counts, "fit": paths.table("fit")},
        params={"ri": to_params(ri_statistics(grid)), "methods": labels.shared_methods},
        makes=["model_comparisons.csv", "model_ranks.csv"],
        tables={"model_comparisons": MODEL_COMPARISONS, "model_ranks": MODEL_RANKS},
        figures={
            "models": Figure(
                question="model",
                caption=CAPTION,
                inputs={"ranks": paths.table("model_ranks")},
                params={
                    **labels.one_method,
                    "models": labels.model_styles,
                    "confidence": labels.confidence,
                },
            )
        },
    )
