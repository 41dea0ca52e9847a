"""Accuracy by slices of datasets, such as the severity of a corruption, on demand.

Slices are columns that a layout adds to a dataset's index; config's `slices` chooses some.
"""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Table

# Side in pixels of the images behind published errors relative to AlexNet's.
SIDE_OF_PUBLISHED_ERRORS = 224
SLICES = Table(
    title="Accuracy by slices of datasets",
    question="why",
    note=(
        "Accuracy in percent before and after fine-tuning on the images of a dataset for which a "
        "column of its index has a value, and the change in percentage points."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed", form="text"),
        Column("Dataset", "dataset"),
        Column("Slice", "slice"),
        Column("Value", "value", form="text"),
        Column("Images", "n"),
        Column("Before (%)", "before", form="number"),
        Column("After (%)", "after", form="number"),
        Column("Change", "change", form="signed"),
    ],
)
MCE = Table(
    title="Mean corruption error (mCE)",
    question="survived",
    note=(
        "Errors relative to AlexNet's (Hendrycks and Dietterich 2019), in percent: the sum of "
        "errors over severities 1 to 5, divided by AlexNet's sum, averaged over the corruptions "
        "for which AlexNet's error is known (fifteen for ImageNet-C). Lower is better; AlexNet has "
        "100. Compare it with published mCE only where the table says so: there images, published "
        "at 224 pixels, were seen whole. Elsewhere the model's crop has enlarged them and cut off "
        "their margin, as the paper's code does."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed", form="text"),
        Column("Dataset", "dataset"),
        Column("mCE before (%)", "before", form="number"),
        Column("mCE after (%)", "after", form="number"),
        Column("Change", "change", form="signed"),
        Column("As published", "comparable", form="text"),
    ],
)


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables of accuracy by slice, such as severity, on demand.

    Curves are left out. Mean corruption errors are added where AlexNet's errors are known.
    """
    runs = [run for run in grid.runs() if run.method not in labels.curves]
    relative_errors = {
        name: _alexnet_errors(grid, dataset.relative_errors)
        for name, dataset in grid.datasets.items()
        if dataset.relative_errors
    }
    # Models that see images as in published errors.
    comparable = {
        dataset: [model for model in grid.models if errors_are_as_published(grid, model, dataset)]
        for dataset in relative_errors
    }
    shown_tables = {"accuracy_by_slice": SLICES}
    if relative_errors:
        shown_tables["mce"] = MCE
    return Analysis(
        inputs={
            "rows": paths.rows(runs),
            "indexes": paths.indexes(),
            "fit": paths.table("fit"),
        },
        params={
            "methods": list(dict.fromkeys(run.method for run in runs)),
            "columns": grid.config["slices"],
            "relative_errors": relative_errors,
            "comparable": comparable,
        },
        makes=["accuracy_by_slice.csv", "corruptions.csv", "mce.csv"],
        tables=shown_tables,
        files={"Accuracy by corruption and severity": ["corruptions.csv"]},
        on_demand=True,
    )


def errors_are_as_published(grid: Grid, model: str, dataset: str) -> bool:
    """Whether a model's errors on corrupted images can be compared with published errors.

    The images are published at input size. A model's crop below 1 would enlarge and crop them
    again, so published errors are without it.
    """
    has_published_size = grid.geometry(model).size == SIDE_OF_PUBLISHED_ERRORS
    return has_published_size and dataset in grid.uncropped


def _alexnet_errors(grid: Grid, file: str) -> dict[str, float]:
    """AlexNet's errors in percent, to which mCE is relative: {"gaussian_noise": 88.6, ...}."""
    rows = grid.catalog.table(file, ("corruption", "error", "source"), ["error"])
    return {row["corruption"]: float(row["error"]) for row in rows}
