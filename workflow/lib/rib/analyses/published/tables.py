"""Comparison of measured and published accuracies of pretrained models."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rib.base.errors import UserError
from rib.base.files import table_text
from rib.base.progress import print_lines
from rib.statistics.inputs import Inputs

TOLERANCE = 0.2  # percentage points; decoders and precisions change a few of 50,000 predictions
DECIMALS = 3  # in the table
KEYS = ["model", "dataset"]
WITHIN = "within"
OUTSIDE = "outside"


def tables(inputs: Inputs) -> dict[str, str]:
    """Text of published.csv by its name: each model's measured beside its published accuracy.

    Raises:
        UserError: No published accuracy fits the grid.
    """
    if not inputs.params["published"]:
        raise UserError(
            "the catalogue's published.csv has no accuracy of these models on these datasets; "
            "choose others, or add the file to your own catalogue folder."
        )
    table = compare(inputs.paths("rows"), **inputs.params)
    return {"published.csv": table_text(table, f"%.{DECIMALS}f")}


def compare(
    rows: Iterable[Path],
    *,
    published: Sequence[Mapping[str, Any]],
    expected_images: Mapping[str, int],
) -> pd.DataFrame:
    """Measured beside published accuracies, one row per published accuracy; prints the verdicts.

    Args:
        rows: files of evaluation rows (one per image) of the pretrained models.
        published: one mapping per published accuracy: model, dataset, accuracy (percent), source,
            and obstacle, why the measured accuracy is not comparable, or None, such as {"model":
            "resnet50.tv_in1k", "dataset": "imagenet_v2", "accuracy": 63.19, "source": ...,
            "obstacle": None}.
        expected_images: number of images of each whole dataset, such as {"imagenet": 50000}, if its
            entry states it; subsets are not comparable.

    Returns:
        model, dataset, published, measured, difference (percent), images, verdict, source.
    """
    stated = pd.DataFrame(list(published)).rename(columns={"accuracy": "published"})
    comparison = stated.merge(_measured(rows), on=KEYS, how="inner")
    difference = comparison["measured"] - comparison["published"]
    # Rounded as in the table: a difference equal to the tolerance is within.
    comparison["difference"] = difference.round(DECIMALS)
    # The table may turn None into NaN.
    obstacles = {
        (accuracy["model"], accuracy["dataset"]): accuracy["obstacle"] for accuracy in published
    }
    comparison["verdict"] = [
        _verdict(
            row["difference"],
            row["images"],
            expected_images.get(row["dataset"]),
            obstacles[row["model"], row["dataset"]],
        )
        for row in comparison.to_dict("records")
    ]
    _print_verdicts(comparison)
    return comparison[[*KEYS, "published", "measured", "difference", "images", "verdict", "source"]]


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


def _verdict(
    difference: float, images: int, expected_images: int | None, obstacle: str | None
) -> str:
    """`within` or `outside` the tolerance, or such as `not comparable: 500 of 50000 images`."""
    if obstacle:
        return f"not comparable: {obstacle}"
    if expected_images and images != expected_images:
        return f"not comparable: {images} of {expected_images} images"
    return WITHIN if abs(difference) <= TOLERANCE else OUTSIDE


def _print_verdicts(comparison: pd.DataFrame) -> None:
    for row in comparison.to_dict("records"):
        print_lines(
            f"{row['model']} on {row['dataset']}: {row['measured']:.2f}, "
            f"published {row['published']:.2f}: {row['verdict']}"
        )
    within = comparison["verdict"].eq(WITHIN).sum()
    print_lines(f"{within} of {len(comparison)} published numbers within {TOLERANCE} points")
