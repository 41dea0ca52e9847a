"""Representations and scores in the course of training.

CKA of the head's input with the pretrained model's, and accuracy on the target with RI. Runs are
trained once more to keep their weights at ten times (rules/train.smk), so that settings of ordinary
runs stay unchanged.
"""

from rib.grid.compared_runs import SNAPSHOTS, compared_runs, megabytes_of_kernels
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.leaks import leak_free_groups
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table
from rib.schema.run import PRETRAINED

CKA_EPOCHS = Table(
    title="Similarity of the head's input in the course of training",
    question="why",
    note=(
        "Debiased linear CKA with the pretrained model on the same images; 'others' is the mean "
        "over all datasets other than the target."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed"),
        Column("Dataset", "dataset"),
        Column("Steps (%)", "trained", form="number"),
        Column("CKA", "cka", form="decimals", interval=("ci_low", "ci_high")),
        Column("Images", "n"),
    ],
)
TRADEOFF_EPOCHS = Table(
    title="Accuracy on the target and robustness in the course of training",
    question="why",
    note=(
        "Accuracy on the target, and mRI in percentage points, at ten times in training of the "
        "runs whose snapshots were kept; at 0 % of the steps the pretrained model. Means over "
        "targets and seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Steps (%)", "trained", form="number"),
        Column("On the target (%)", "on_target", form="number"),
        Column("mRI", "mri", form="signed"),
    ],
)
CAPTION_OF_CKA = """\
When fine-tuning changes what the head reads: debiased CKA with the pretrained model's features at
ten times in training, on the target and, as the mean, on the other datasets. At 0 % is the
pretrained model itself.
"""
CAPTION_OF_TRADEOFF = """\
The way from the pretrained model (star) to the fine-tuned ones, scored at ten times in training:
across, accuracy on the target; up, mRI of the targets named below. Where two lines pass over the
same accuracy on the target, the methods fit equally well, and the higher line kept more robustness;
end points alone also compare how far training got. Lines have no intervals; the figure and the
table of mRI have intervals of the finished runs.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables and figures of runs at ten times in training.

    Config's `representations` chooses the runs.
    """
    pretrained = paths.pretrained_runs.values()
    runs = [run for run in compared_runs(grid) if grid.methods[run.method].trains]
    of_runs = labels.of_compared_runs
    methods = {
        name: style for name, style in of_runs["methods"].items() if grid.methods[name].trains
    }
    return Analysis(
        inputs={
            "before": paths.features(pretrained),
            "after": paths.features(runs, "epochs"),
            "rows": [*paths.rows(pretrained), *paths.rows(runs, "evaluate_snapshots")],
            "indexes": paths.indexes(),
            "fit": paths.table("fit"),
        },
        params={
            "methods": list(dict.fromkeys([PRETRAINED, *(run.method for run in runs)])),
            "snapshots": len(SNAPSHOTS),
            "ood_datasets": grid.ood,
            "source_groups": leak_free_groups(grid),
            "confidence": labels.confidence,
        },
        makes=["cka_epochs.csv", "tradeoff_epochs.csv"],
        without_fit=["tradeoff_epochs"],
        tables={"cka_epochs": CKA_EPOCHS, "tradeoff_epochs": TRADEOFF_EPOCHS},
        figures={
            "cka_epochs": Figure(
                question="why",
                caption=CAPTION_OF_CKA,
                inputs={"cka_epochs": paths.table("cka_epochs")},
                params={**of_runs, "methods": methods},
            ),
            "tradeoff_epochs": Figure(
                question="why",
                caption=CAPTION_OF_TRADEOFF,
                inputs={"tradeoff_epochs": paths.table("tradeoff_epochs")},
                params={
                    "models": of_runs["models"],
                    "methods": methods,
                    "targets": of_runs["targets"],
                    "accuracy": labels.accuracy_on_target,
                },
            ),
        },
        on_demand=True,
        megabytes=megabytes_of_kernels(grid.config["representations"]["images"]),
    )
