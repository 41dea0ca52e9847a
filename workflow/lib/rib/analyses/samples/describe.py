"""Predictions before and after fine-tuning, image by image: flips, calibration and scores."""

from rib.base.params import to_params
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table
from rib.statistics.statistics_settings import ri_statistics

FLIPS = Table(
    title="Agreement with the pretrained model",
    question="why",
    note=(
        "Percentage of images, averaged over targets, seeds and the datasets other than each "
        "target: same prediction before and after, right before and wrong after, wrong before and "
        "right after. Wrong to right minus right to wrong is mRI. Confidence intervals are over "
        "objects only, with any number of seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size", form="text"),
        Column("Same prediction", "agreement", interval=("agreement_low", "agreement_high")),
        Column(
            "Right to wrong",
            "right_to_wrong",
            interval=("right_to_wrong_low", "right_to_wrong_high"),
        ),
        Column(
            "Wrong to right",
            "wrong_to_right",
            interval=("wrong_to_right_low", "wrong_to_right_high"),
        ),
    ],
)
MEAN_SCORES = Table(
    title="Top-5 accuracy, likelihood, Brier score, macro F1 and worst group",
    question="why",
    note=(
        "Means over targets, seeds and the datasets other than each target. NLL: negative "
        "log-likelihood of the label in nats; Brier: squared distance between probabilities and "
        "label, 0 to 2; lower is better for both. Macro F1: mean over classes of the harmonic mean "
        "of precision and recall. Worst group: lowest accuracy over the groups of a dataset's "
        "images. Confidence intervals are of the change and over objects only, with any number of "
        "seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size", form="text"),
        Column("Top-1 before (%)", "top1_before"),
        Column("Top-1 after (%)", "top1_after"),
        Column(
            "Top-1 change",
            "top1_change",
            form="signed",
            interval=("top1_change_low", "top1_change_high"),
        ),
        Column("Top-5 before (%)", "top5_before"),
        Column("Top-5 after (%)", "top5_after"),
        Column(
            "Top-5 change",
            "top5_change",
            form="signed",
            interval=("top5_change_low", "top5_change_high"),
        ),
        Column("NLL before", "nll_before", form="decimals"),
        Column("NLL after", "nll_after", form="decimals"),
        Column(
            "NLL change",
            "nll_change",
            form="decimals",
            interval=("nll_change_low", "nll_change_high"),
        ),
        Column("Brier before", "brier_before", form="decimals"),
        Column("Brier after", "brier_after", form="decimals"),
        Column(
            "Brier change",
            "brier_change",
            form="decimals",
            interval=("brier_change_low", "brier_change_high"),
        ),
        Column("Macro F1 before (%)", "macro_f1_before"),
        Column("Macro F1 after (%)", "macro_f1_after"),
        Column("Macro F1 change", "macro_f1_change", form="signed"),
        Column("Worst group before (%)", "worst_group_before"),
        Column("Worst group after (%)", "worst_group_after"),
        Column("Worst group change", "worst_group_change", form="signed"),
    ],
)
RI_SCORES = Table(
    title="RI of other scores",
    question="survived",
    note=(
        "RI of accuracy, and the same of the scores that the family asks for: the mean change "
        "over the datasets other than the target, in percentage points, a mean over seeds; of the "
        "worst group over those datasets that have groups. Target mean: over all targets. "
        "Confidence intervals are over objects only, with any number of seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size", form="text"),
        Column("RI", "ri", form="signed", interval=("ri_low", "ri_high")),
        Column(
            "RI of macro F1",
            "ri_macro_f1",
            form="signed",
            interval=("ri_macro_f1_low", "ri_macro_f1_high"),
        ),
        Column(
            "RI of the worst group",
            "ri_worst_group",
            form="signed",
            interval=("ri_worst_group_low", "ri_worst_group_high"),
        ),
    ],
)
CAPTION = """\
Images of the other datasets that fine-tuning flipped, in percent: right before and wrong after
(bars to the left of 0), wrong before and right after (to the right); beside them the share with the
same prediction, right or wrong (dots). The right bar minus the left one is mRI; where both are
long, much was traded for a small difference of means. Whiskers are bootstrap confidence intervals
over objects; targets, datasets and trained networks are fixed.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables and figure that compare predictions image by image.

    Curves (several networks per run) are left out. One job reads all rows: with a job per run,
    start-up would take longer than reading.
    """
    runs = [run for run in grid.runs() if run.method not in labels.curves]
    shown_tables = {"flips": FLIPS, "mean_scores": MEAN_SCORES}
    if grid.family.scores:
        shown_tables["ri_scores"] = RI_SCORES
    real_labels = [name for name, dataset in grid.datasets.items() if dataset.real_labels]
    groups = {name: dataset.groups for name, dataset in grid.datasets.items() if dataset.groups}
    return Analysis(
        inputs={
            "rows": paths.rows(runs),
            "indexes": paths.indexes(),
            "classes": paths.classes(),
            "fit": paths.table("fit"),
        },
        params={
            "methods": list(dict.fromkeys(run.method for run in runs)),
            "ri": to_params(ri_statistics(grid)),
            "real_labels": real_labels,
            "groups": groups,
            "scores": grid.family.scores,
        },
        makes=["samples.csv", "scores.csv", *(f"{name}.csv" for name in shown_tables)],
        tables=shown_tables,
        # With a line for each run and dataset, thousands in the paper's grid, they are only linked.
        files={
            "Agreement, calibration and scores by run and dataset": ["samples.csv", "scores.csv"]
        },
        figures={
            "flips": Figure(
                question="why",
                caption=CAPTION,
                inputs={"flips": paths.table("flips")},
                params=labels.means,
                marks_runs=True,
            )
        },
    )
