"""Comparison of measured and published accuracies of pretrained models."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rib.base.progress import print_lines

TOLERANCE = 0.2  # percentage points; decoders and precisions change a few of 50,000 predictions
DECIMALS = 3  # in the table
KEYS = ["model", "dataset"]
WITHIN = "within"
OUTSIDE = "outside"


def compare(
    rows: Iterable[Path],
    *,
    published: Sequence[Mapping[str, Any]],
    expected_images: Mapping[str, int],
) -> pd.DataFrame:
    """One row per published accuracy: the measured accuracy, the difference and the verdict.

    Verdicts are printed, too.

    Args:
        rows: evaluation rows of the pretrained models.
        published: model, dataset, accuracy (percent) and source of each published accuracy, and the
            obstacle to a comparison with it: why the accuracy that was measured is not comparable;
            None if it is.
        expected_images: number of images of each whole dataset, if its entry states it; subsets are
            not comparable.

    Returns:
        model, dataset, published, measured, difference (percent), images, verdict, source.
    """
    stated = pd.DataFrame(list(published)).rename(columns={"accuracy": "published"})
    comparison = stated.merge(_measured(rows), on=KEYS, how="inner")
    difference = comparison["measured"] - comparison["published"]
    # Rounded as in the table, so that a difference equal to the tolerance is within.
    comparison["difference"] = difference.round(DECIMALS)
    # Not from the table, in which None may become NaN.
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
    """Measured accuracy of each model on each dataset: model, dataset, measured (percent), images.

    Args:
        rows: evaluation rows.
    """
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
    """Whether a measured accuracy is that published, or why the two are not comparable.

    Args:
        difference: measured minus published accuracy, percentage points.
        expected_images: images of the whole dataset; None if that is unknown.
        obstacle: see `compare`.
    """
    if obstacle:
        return f"not comparable: {obstacle}"
    if expected_images and images != expected_images:
        return f"not comparable: {images} of {expected_images} images"
    return WITHIN if abs(difference) <= TOLERANCE else OUTSIDE


def _print_verdicts(comparison: pd.DataFrame) -> None:
    """Print a line for each published number, and how many were reproduced."""
    for row in comparison.to_dict("records"):
        print_lines(
            f"{row['model']} on {row['dataset']}: {row['measured']:.2f}, "
            f"published {row['published']:.2f}: {row['verdict']}"
        )
    within = comparison["verdict"].eq(WITHIN).sum()
    print_lines(f"{within} of {len(comparison)} published numbers within {TOLERANCE} points")
