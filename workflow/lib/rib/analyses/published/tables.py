"""Comparison of measured and published accuracies of pretrained and of fine-tuned models."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rib.analyses.in_1k.tables import in_1k_table
from rib.base.errors import UserError
from rib.base.files import read_json, table_text
from rib.base.progress import print_lines
from rib.schema.layout import Layout
from rib.statistics.inputs import Inputs

TOLERANCE = 0.2  # percentage points; decoders and precisions change a few of 50,000 predictions
FEWEST_IMAGES = 10_000  # of fewer, a few predictions are more than the tolerance
PRECISION = "fp32"  # of networks whose accuracies are compared
DECIMALS = 3  # in the table
KEYS = ["model", "dataset"]
SHOWN = [
    "model",
    "dataset",
    "image_size",
    "published",
    "measured",
    "difference",
    "images",
    "verdict",
    "source",
]
SHOWN_OF_METHODS = [
    "paper",
    "table",
    "model",
    "method",
    "run",
    "target",
    "size",
    "alpha",
    "dataset",
    "published",
    "measured",
    "measured_sd",
    "seeds",
    "difference",
    "differs",
    "source",
]
WITHIN = "within"
OUTSIDE = "outside"


def tables(inputs: Inputs) -> dict[str, str]:
    """Texts of published.csv and, if the grid has such runs, of published_methods.csv.

    Raises:
        UserError: No published accuracy fits the grid.
    """
    params = inputs.params
    if not params["published"]:
        raise UserError(
            "no table of the catalogue has a published accuracy of these models on these datasets; "
            "choose others, or add published.csv to your own catalogue folder."
        )
    table = compare(
        inputs.paths("rows"),
        published=params["published"],
        expected_images=params["expected_images"],
        precisions=precisions_of(inputs.paths("manifests")),
    )
    texts = {"published.csv": table_text(table, f"%.{DECIMALS}f")}
    if "methods" in params:
        measured = in_1k_table(
            inputs.paths("rows_of_runs"), params["tests"], params["ood_datasets"]
        )
        beside = beside_papers(measured, params["methods"])
        texts["published_methods.csv"] = table_text(beside, f"%.{DECIMALS}f")
    return texts


def precisions_of(manifests: Iterable[Path]) -> dict[str, str]:
    """Precision by model, {"resnet18.tv_in1k": "fp32"}, from manifests of evaluations."""
    return {Layout.run_of(path).model: read_json(path)["precision"] for path in manifests}


def compare(
    rows: Iterable[Path],
    *,
    published: Sequence[Mapping[str, Any]],
    expected_images: Mapping[str, int],
    precisions: Mapping[str, str],
) -> pd.DataFrame:
    """Measured beside published accuracies, one row per published accuracy; prints the verdicts.

    Args:
        rows: files of evaluation rows (one per image) of the pretrained models.
        published: one mapping per published accuracy: model, dataset,
            image_size (pixels or None), accuracy (percent), source, and obstacle, why the measured
            accuracy is not comparable, or None, such as {"model": "resnet50.tv_in1k", "dataset":
            "imagenet_v2", "image_size": 224, "accuracy": 63.19, "source": ...,
            "obstacle": None}.
        expected_images: number of images of each whole dataset, such as {"imagenet": 50000}, if its
            entry states it; subsets are not comparable.
        precisions: in which each model was evaluated: {"resnet50.tv_in1k": "fp32"}.

    Returns:
        model, dataset, image_size of the published run, published,
        measured, difference (percent), images, verdict, source.
    """
    stated = pd.DataFrame(list(published)).rename(columns={"accuracy": "published"})
    stated["image_size"] = stated["image_size"].astype("Int64")
    comparison = stated.merge(_measured(rows), on=KEYS, how="inner")
    difference = comparison["measured"] - comparison["published"]
    # Rounded as in the table: a difference equal to the tolerance is within.
    comparison["difference"] = difference.round(DECIMALS)
    # The table may turn None into NaN.
    obstacles = {
        (accuracy["model"], accuracy["dataset"]): accuracy["obstacle"] for accuracy in published
    }
    verdicts = []
    for row in comparison.to_dict("records"):
        obstacle = (
            obstacles[row["model"], row["dataset"]]
            or _obstacle_in_images(row["images"], expected_images.get(row["dataset"]))
            or _obstacle_in_precision(precisions[row["model"]])
        )
        verdicts.append(_verdict(row["difference"], obstacle))
    comparison["verdict"] = verdicts
    _print_verdicts(comparison)
    return comparison[SHOWN]


def beside_papers(measured: pd.DataFrame, methods: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Measured beside published accuracies of fine-tuned models; there is no verdict.

    Protocols differ, and `differs` says how as far as the source states it.

    Args:
        measured: rows of in_1k.csv.
        methods: one mapping per published accuracy: attributes of PublishedMethod, and runs, the
            grid's methods that are this one, such as {..., "method": "ft", "runs": ["ft_adamw"]}.

    Returns:
        A row per published accuracy and network: paper, table, model, method, run (the grid's
        method), target, size, alpha, dataset, published, measured (mean over seeds), measured_sd
        (its standard deviation over seeds), seeds, difference (all in percent), differs, source.
        Published methods that the grid doesn't have are there without a measured accuracy.
    """
    stated = pd.DataFrame([dict(row) for row in methods]).rename(columns={"accuracy": "published"})
    # A published accuracy without runs keeps a row, with NaN as run.
    of_runs = stated.explode("runs").rename(columns={"runs": "run"})
    networks = measured.rename(
        columns={"method": "run", "accuracy": "measured", "accuracy_sd": "measured_sd"}
    )
    table = of_runs.merge(networks, on=["model", "run", "target", "dataset"], how="left")
    table["difference"] = table["measured"] - table["published"]
    table["seeds"] = table["seeds"].astype("Int64")
    return table[SHOWN_OF_METHODS]


def _measured(rows: Iterable[Path]) -> pd.DataFrame:
    """Accuracies from rows: model, dataset, measured (percent), images."""
    tables = []
    for path in rows:
        table = pd.read_parquet(path, columns=[*KEYS, "rank"])
        tables.append(table.astype(dict.fromkeys(KEYS, str)))
    predictions = pd.concat(tables)
    predictions["right"] = predictions["rank"] == 0
    right = predictions.groupby(KEYS)["right"]
    measured = pd.DataFrame({"measured": 100 * right.mean(), "images": right.size()})
    return measured.reset_index()


def _obstacle_in_images(images: int, expected_images: int | None) -> str | None:
    """Such as `500 of 50000 images`; None if enough were scored."""
    if expected_images and images != expected_images:
        return f"{images} of {expected_images} images"
    if images < FEWEST_IMAGES:
        return f"{images} images, too few for a tolerance of {TOLERANCE} points"
    return None


def _obstacle_in_precision(precision: str) -> str | None:
    """Such as `networks computed in bf16, not fp32`; None if they did in fp32."""
    if precision == PRECISION:
        return None
    return f"networks computed in {precision}, not {PRECISION}"


def _verdict(difference: float, obstacle: str | None) -> str:
    """`within` or `outside` the tolerance, or such as `not comparable: 500 of 50000 images`."""
    if obstacle:
        return f"not comparable: {obstacle}"
    return WITHIN if abs(difference) <= TOLERANCE else OUTSIDE


def _print_verdicts(comparison: pd.DataFrame) -> None:
    for row in comparison.to_dict("records"):
        print_lines(
            f"{row['model']} on {row['dataset']}: {row['measured']:.2f}, "
            f"published {row['published']:.2f}: {row['verdict']}"
        )
    within = comparison["verdict"].eq(WITHIN).sum()
    print_lines(f"{within} of {len(comparison)} published numbers within {TOLERANCE} points")
