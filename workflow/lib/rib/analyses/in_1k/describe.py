"""The field's own table: fine-tuned on a training set in distribution, tested in and out of it."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table

# Runs on targets in distribution are in this table, and in RI, alone.
EVERY_TARGET = True

IN_1K = Table(
    title="Fine-tuned on a training set in distribution",
    question="survived",
    note=(
        "Accuracy in percent of networks that were fine-tuned on the training set of a dataset in "
        "distribution: on its test set, on each out-of-distribution dataset, and the mean over "
        "these; then the expected calibration error (ECE) of each in percent. Means over seeds, "
        "with the standard deviation over seeds. pretrained is the network before. Alpha is the "
        "share of the fine-tuned weights on a curve. No mean over targets has these runs."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size", form="text"),
        Column("Alpha", "alpha", form="decimals"),
        Column("Measured on", "dataset"),
        Column("Seeds", "seeds", form="count"),
        Column("Accuracy", "accuracy", form="number"),
        Column("SD", "accuracy_sd", form="decimals"),
        Column("ECE", "ece", form="number"),
        Column("ECE, SD", "ece_sd", form="decimals"),
    ],
)
CAPTION = """\
Accuracy on the test set in distribution (horizontal) and mean accuracy on the out-of-distribution
datasets (vertical), in percent, of networks fine-tuned on the training set; a panel per model and
target, means over seeds. The star is the network before. Up and right is better. A line joins the
networks of a curve, averages of the weights before and after fine-tuning.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the table and figure in_1k; None without targets in distribution."""
    runs = [run for run in grid.runs() if run.target in grid.id_targets]
    if not runs:
        return None
    tests = {name: grid.catalog.datasets[name].test for name in grid.id_targets}
    methods = {}
    for name, method in grid.methods.items():
        if name not in grid.over_targets:
            methods[name] = {
                "label": method.label,
                "colour": method.style.colour,
                "marker": str(method.style.marker),
            }
    return Analysis(
        inputs={
            "rows": paths.rows([*paths.pretrained_runs.values(), *runs]),
            "fit": paths.table("id_targets_fit"),
        },
        params={
            "tests": tests,
            "ood_datasets": grid.ood,
        },
        makes=["in_1k.csv"],
        tables={"in_1k": IN_1K},
        figures={
            "in_1k": Figure(
                question="survived",
                caption=CAPTION,
                inputs={"in_1k": paths.table("in_1k")},
                # Not `methods`: the marks of fit.csv are of runs on other targets.
                params={"models": labels.models, "looks": methods, "tests": tests},
            )
        },
    )
