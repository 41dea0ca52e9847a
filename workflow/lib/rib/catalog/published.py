"""Published accuracies: tables of the catalogue folders, read and checked. No torch.

`published.csv` has a row for each accuracy. `timm_accuracies.csv` and `testbed_accuracies.csv` have
a row for each model (and image size) and a column for each dataset; their first line names the
source. `published_methods.csv` has accuracies of fine-tuned models.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rib.base.errors import UserError
from rib.catalog.catalog import Catalog
from rib.catalog.label_space import read_csv_rows
from rib.catalog.model_names import parse_name
from rib.schema.entries import Model
from rib.schema.fields import is_number, number
from rib.schema.messages import nearest, show

PUBLISHED = "published.csv"
TIMM = "timm_accuracies.csv"
TESTBED = "testbed_accuracies.csv"
METHODS = "published_methods.csv"
SOURCE = "# source: "  # begins the first line of a table with a column for each dataset
ACCURACY_COLUMNS = ("model", "dataset", "accuracy", "source")
# Columns of a row for each model that are no datasets.
FACTS_OF_MODELS = ("model", "img_size", "crop_pct", "baseline")
METHOD_COLUMNS = (
    "paper",
    "table",
    "model",
    "method",
    "target",
    "dataset",
    "accuracy",
    "source",
    "differs",
)


@dataclass(frozen=True)
class PublishedAccuracy:
    """Accuracy of a pretrained model as somebody published it.

    Attributes:
        model: such as resnet50.tv2_in1k.
        dataset: such as imagenet_v2.
        accuracy: percent.
        source: such as "timm results (4e5207c7)".
        image_size, crop_pct: geometry of the published run, such as 224 and 0.965; None if the
            table does not have it.
        baseline: whether the table has the model on the line of effective robustness.
    """

    model: str
    dataset: str
    accuracy: float
    source: str
    image_size: int | None = None
    crop_pct: float | None = None
    baseline: bool = False


@dataclass(frozen=True)
class PublishedMethod:
    """Accuracy of a fine-tuned model as a paper states it.

    Attributes:
        paper, table: where it is, such as "VRF (NeurIPS 2024)" and "2".
        model: pretrained model, such as ViT-B-16.openai.
        method: name in the catalogue, `pretrained`, or the paper's own name of another method.
        target: dataset that was fine-tuned on, such as imagenet_train.
        dataset: such as imagenet_v2.
        accuracy: percent.
        source: where the value was read.
        differs: what the source says of its training, and does not say.
    """

    paper: str
    table: str
    model: str
    method: str
    target: str
    dataset: str
    accuracy: float
    source: str
    differs: str


def published_accuracies(catalog: Catalog) -> list[PublishedAccuracy]:
    """Accuracies of pretrained models in timm_accuracies.csv, then those in published.csv.

    Raises:
        UserError: A row names an unknown model or dataset, or its accuracy is not in 0 to 100.
    """
    accuracies = list(_of_wide_table(catalog, TIMM))
    known_models = _known_models(catalog, accuracies)
    for where, row in _rows(catalog, PUBLISHED, ACCURACY_COLUMNS):
        _check_model(row["model"], known_models, where)
        _check_dataset(row["dataset"], catalog, where)
        stated = PublishedAccuracy(
            model=row["model"],
            dataset=row["dataset"],
            accuracy=_percent(row["accuracy"], "accuracy", where),
            source=row["source"],
        )
        accuracies.append(stated)
    return accuracies


def accuracies_of_testbed(catalog: Catalog) -> list[PublishedAccuracy]:
    """Accuracies in testbed_accuracies.csv, of models under the testbed's own names.

    Its resnet50 need not be the model that the catalogue or a library calls so.

    Raises:
        UserError: A column is no dataset, or an accuracy is not in 0 to 100.
    """
    return list(_of_wide_table(catalog, TESTBED))


def published_methods(catalog: Catalog) -> list[PublishedMethod]:
    """Accuracies of fine-tuned models in the catalogue folders' published_methods.csv.

    Raises:
        UserError: A row names an unknown model or dataset, or its accuracy is not in 0 to 100.
    """
    known_models = _known_models(catalog, _of_wide_table(catalog, TIMM))
    stated = []
    for where, row in _rows(catalog, METHODS, METHOD_COLUMNS):
        _check_model(row["model"], known_models, where)
        _check_dataset(row["target"], catalog, where)
        _check_dataset(row["dataset"], catalog, where)
        facts = {column: row[column] for column in METHOD_COLUMNS if column != "accuracy"}
        accuracy = _percent(row["accuracy"], "accuracy", where)
        stated.append(PublishedMethod(**facts, accuracy=accuracy))
    return stated


def timm_name(model: Model) -> str:
    """A model's name in timm's tables: resnet18.a1_in1k for one that is looked up as timm/resnet18.

    Its weights' repository on the hub has this name. Other models have their own.
    """
    repo = getattr(model.source, "repo", "")
    if model.library == "timm" and repo.startswith("timm/"):
        return str(repo.removeprefix("timm/"))
    return model.name


@lru_cache(maxsize=2)  # several analyses ask for the same two tables at every start
def _of_wide_table(catalog: Catalog, name: str) -> tuple[PublishedAccuracy, ...]:
    """Accuracies of a table with a column for each dataset."""
    accuracies: list[PublishedAccuracy] = []
    for folder in catalog.folders:
        path = folder / name
        if not path.is_file():
            continue
        source = _source_of(path)
        for where, row in read_csv_rows(path, ["model"]):
            accuracies.extend(_of_model(row, source, catalog, where))
    return tuple(accuracies)


def _of_model(
    row: dict[str, str], source: str, catalog: Catalog, where: str
) -> Iterator[PublishedAccuracy]:
    """Accuracies of one row of a table with a column for each dataset; empty cells have none."""
    size_text = row.get("img_size")
    image_size = int(_positive(size_text, "img_size", where)) if size_text else None
    crop_text = row.get("crop_pct")
    crop_pct = _positive(crop_text, "crop_pct", where) if crop_text else None
    baseline = row.get("baseline", "")
    if baseline not in ("yes", ""):
        raise UserError(f"{where}: baseline is {show(baseline)}; write yes, or nothing.")
    for column, text in row.items():
        if column in FACTS_OF_MODELS or not text:
            continue
        _check_dataset(column, catalog, where)
        yield PublishedAccuracy(
            model=row["model"],
            dataset=column,
            accuracy=_percent(text, column, where),
            source=source,
            image_size=image_size,
            crop_pct=crop_pct,
            baseline=baseline == "yes",
        )


def _source_of(path: Path) -> str:
    """What the first line says after `# source: `."""
    with path.open(encoding="utf-8-sig") as file:
        first_line = file.readline().strip()
    source = first_line.removeprefix(SOURCE)
    if source == first_line or not source:
        raise UserError(
            f"{path} line 1: the accuracies have no source; begin the file with a line such as "
            f"`{SOURCE}timm results (4e5207c7)`."
        )
    return source


def _rows(
    catalog: Catalog, name: str, columns: Iterable[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of each row of a table, from all catalogue folders that have it."""
    for folder in catalog.folders:
        if (folder / name).is_file():
            yield from read_csv_rows(folder / name, columns)


def _known_models(catalog: Catalog, of_tables: Iterable[PublishedAccuracy]) -> set[str]:
    """Names of the catalogue's models, of those that were looked up, and of the tables' models."""
    looked_up = {parse_name(name).short for name in catalog.lock.models}
    return {*catalog.models, *looked_up, *(stated.model for stated in of_tables)}


def _check_model(name: str, known_names: Collection[str], where: str) -> None:
    if name not in known_names:
        raise UserError(
            f"{where}: unknown model {show(name)}{nearest(name, known_names)}; name one of the "
            f"catalogue, of {TIMM}, or one that `rib lock` has looked up."
        )


def _check_dataset(name: str, catalog: Catalog, where: str) -> None:
    if name not in catalog.datasets:
        raise UserError(
            f"{where}: unknown dataset {show(name)}{nearest(name, catalog.datasets)}; name one of "
            "the catalogue."
        )


def _percent(text: str, column: str, where: str) -> float:
    """An accuracy in percent."""
    value = number(text)
    if not is_number(value) or not 0 <= value <= 100:
        raise UserError(f"{where}: {column} is {show(text)}; give a number from 0 to 100.")
    return float(value)


def _positive(text: str, column: str, where: str) -> float:
    """A number above 0."""
    value = number(text)
    if not is_number(value) or value <= 0:
        raise UserError(f"{where}: {column} is {show(text)}; give a number above 0.")
    return float(value)
