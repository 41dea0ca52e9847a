"""Cost of one mRI of each method, from the records of jobs."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table
from rib.schema.run import PRETRAINED

COST = Table(
    title="Cost of one mRI",
    question="cost",
    note=(
        "Seconds for one mRI of a method (processor time on a CPU, else how long a GPU was held), "
        "mean over seeds: fine-tuning on all targets (including methods that it needs, and for a "
        "merge over seeds with all seeds), merging, and evaluation (including the pretrained "
        "model). Megabytes of what fine-tuning and merging store. Memory: megabytes of main memory "
        "of the training that held most, on a GPU without the GPU's memory."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Device", "device"),
        Column("Jobs", "jobs"),
        Column("Fine-tuning", "finetune", form="number"),
        Column("Merging", "merge", form="number"),
        Column("Evaluation", "evaluate", form="number"),
        Column("Total", "seconds", form="number"),
        Column("Megabytes", "megabytes", form="number"),
        Column("Memory", "memory", form="number"),
    ],
)
CAPTION = """\
What one mRI of each method takes, cheapest on top: the time of the jobs (processor time on a CPU)
that fine-tune on every target (including those of methods that it needs), merge and evaluate, the
pretrained model's evaluation included, mean over seeds; beside it the mRI. Times are those of this
run's machines and differ from run to run.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake table and figure of each method's time and storage.

    Only methods that are trained here are shown. Records are parameters, not inputs, so that the
    table can be made if only rows and reports were pulled.
    """
    records = paths.records()
    needed = {}  # methods that a method merges, such as {"ft": [], "half": ["ft"]}
    for name in labels.methods:
        parents = list(grid.methods[name].parents)
        # A method without parents is trained itself.
        if all(grid.methods[key].trains for key in parents or [name]):
            needed[name] = parents
    # Methods that one job evaluates: {"wise_ft-alpha": ["wise_ft-alpha0.25", ...], ...}.
    evaluated = {PRETRAINED: [PRETRAINED]}
    for method in grid.methods.values():
        evaluated[method.evaluation] = list(method.evaluated)
    # Records of Fisher information by method: for merges, and shared by trainings on all targets.
    fisher: dict[str, list[str]] = {}
    for run in paths.merged_runs:
        if run.method in needed and (files := paths.fisher("provenance.json", run)):
            fisher.setdefault(run.method, []).extend(files)
    shared_fisher: dict[str, dict[str, None]] = {}
    for run in paths.trained_runs:
        for file in paths.shared_fisher("provenance.json", run):
            shared_fisher.setdefault(run.method, {})[file] = None
    return Analysis(
        inputs={"mri": paths.table("mri"), "fit": paths.table("fit")},
        params={
            "records": [
                path
                for stage in ("finetune", "merge", "evaluate")
                for path in records.get(stage, [])
            ],
            "evaluated": evaluated,
            "fisher": fisher,
            "shared_fisher": {method: list(files) for method, files in shared_fisher.items()},
            "parents": needed,
        },
        makes=["cost.csv"],
        tables={"cost": COST},
        figures={
            "cost": Figure(
                question="cost",
                caption=CAPTION,
                inputs={"cost": paths.table("cost"), "mri": paths.table("mri")},
                params=labels.means,
                marks_runs=True,
            )
        },
    )
