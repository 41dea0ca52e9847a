"""Facts about datasets and models for readers: images, roles, heads, licences."""

from typing import Any

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Table
from rib.schema.run import ALL

DATA = Table(
    title="Data",
    question="trust",
    note=(
        "RI is averaged over the datasets that count in it, without the target. Confidence "
        "intervals resample objects: images of one object, and identical images, are drawn "
        "together. Identical images have the same pixels after decoding and are one source image; "
        "where their classes differ, one label is wrong or arbitrary. Protocol held_out has images "
        "for fine-tuning if the dataset is the target, for the selection of merges, and for "
        "testing."
    ),
    columns=[
        Column("Dataset", "label"),
        Column("Role", "role", form="text"),
        Column("Images", "images"),
        Column("Evaluated", "evaluated"),
        Column("Left out", "left_out", form="text"),
        Column("Objects", "objects"),
        Column("Classes", "classes"),
        Column("For training", "train", form="count", optional=True),
        Column("For selection", "select", form="count", optional=True),
        Column("For testing", "test", form="count", optional=True),
        Column("Identical to another", "identical", form="count"),
        Column("In other datasets", "shared", form="count"),
        Column("Which", "shared_with", form="text"),
        Column("Of another class", "other_class", form="count"),
        Column("Licence", "licence", form="text"),
        Column("Origin", "origin", form="text"),
    ],
    open=True,
)
MODELS = Table(
    title="Models",
    question="trust",
    note=(
        "Images are evaluated at the size in the column Pixels, the networks were published for "
        "the one beside it. A head that is fitted here is of this project: another proxy would "
        "give another."
    ),
    columns=[
        Column("Model", "model"),
        Column("Architecture", "architecture", form="text"),
        Column("Pretrained on", "pretraining", form="text"),
        Column("Head", "head", form="text"),
        Column("Pixels", "pixels"),
        Column("Published for", "own_pixels"),
        Column("Licence", "licence", form="text"),
    ],
    open=True,
)
LABELS = Table(
    title="Labels",
    question="trust",
    note=(
        "Whether the pretrained network agrees better with other labels than with the stated ones "
        '(exact McNemar tests, Holm-adjusted). "Agrees": the stated labels are significantly '
        'better than all others. "Not decided": neither they nor others are. Others that are, and '
        "reach half of the network's median accuracy over the datasets, stop the run; "
        '"overridden": somebody has checked the stated labels, so it goes on. Heads that were '
        "trained on the family's own labels can't tell."
    ),
    columns=[
        Column("Model", "model"),
        Column("Dataset", "label"),
        Column("Verdict", "verdict", form="text"),
        Column("Images", "images"),
        Column("Accuracy", "accuracy"),
        Column("Median over datasets", "median_accuracy"),
        Column("Best other mapping", "mapping", form="text"),
        Column("Its accuracy", "mapping_accuracy"),
        Column("p", "p_holm", form="p"),
    ],
)

EVERY_TARGET = True


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake the tables data, models and perhaps labels.

    Table labels needs pretrained models that checked the datasets' labels.
    """
    read = grid.datasets_read()

    def of_datasets(file: str) -> list[str]:
        return [paths.prepared(file, dataset.name, paths.first_geometry) for dataset in read]

    verdicts = paths.label_verdicts()
    tables = {"data": DATA, "models": MODELS}
    if verdicts:
        tables["labels"] = LABELS
    return Analysis(
        inputs={
            "accuracy": paths.table("accuracy"),
            "prepared": of_datasets("manifest.json"),
            "indexes": of_datasets("index.parquet"),
            "classes": of_datasets("classes.json"),
            "descriptions": [paths.model("model.json", model) for model in grid.models],
            "verdicts": verdicts,
            "splits": paths.splits(paths.first_geometry, grid.datasets),
        },
        params={
            "datasets": {
                dataset.name: {
                    "label": dataset.label,
                    "role": _role(dataset.name, grid),
                    "excluded": _exclusions(dataset.name, grid),
                    "licence": dataset.licence,
                    "origin": dataset.origin,
                }
                for dataset in read
            },
            "models": _facts_of_models(grid),
            "split": list(grid.datasets) if grid.split_fractions else [],
        },
        makes=[f"{name}.csv" for name in tables],
        tables=tables,
    )


def _role(name: str, grid: Grid) -> str:
    """For the table, how the run uses a dataset: `counts in RI; fine-tuned on`."""
    if name in grid.id_targets:
        return "in distribution; fine-tuned on"
    if name not in grid.datasets:
        return "pretraining or its proxy"
    if name in grid.ood:
        role = "counts in RI"
    elif grid.datasets[name].role == "in_distribution":
        role = "in distribution, not in RI"
    else:
        role = "variant, not in RI"
    if name in grid.targets:
        role += "; fine-tuned on"
    return role


def _exclusions(name: str, grid: Grid) -> str:
    """For the table, why images are left out: `the pretraining proxy, the budget`."""
    reasons = []
    if name in grid.datasets and grid.excludes_proxy(name):
        reasons.append("the pretraining proxy")
    if grid.budget.limit(name) != ALL:
        reasons.append("the budget")
    if grid.split_fractions is not None:
        reasons.append("for training and selection")
    return ", ".join(reasons)


def _facts_of_models(grid: Grid) -> dict[str, dict[str, Any]]:
    """For the table: {"net": {"architecture": "resnet18", "pixels": 112, ...}}."""
    return {
        name: {
            "architecture": model.architecture,
            "pretraining": model.pretraining,
            "pixels": grid.geometry(name).size,
            "own_pixels": model.preprocessing.input_size,
            "licence": model.licence,
        }
        for name, model in grid.models.items()
    }
