"""Comparison of measured and published accuracies of pretrained models, to validate the pipeline."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from rib.base.files import write_table
from rib.base.progress import print_lines

TOLERANCE = 0.2  # percentage points; decoders and precisions change a few of 50,000 predictions
DECIMALS = 3  # decimals in the table
KEYS = ["model", "dataset"]


def compare(
    *,
    rows: Iterable[Path],
    published: Iterable[dict],
    expected: Mapping[str, int],
    obstacle: str | None,
    table: Path,
) -> None:
    """Write one row per published accuracy: the measured accuracy, the difference and the verdict.

    Args:
        published: model, dataset, accuracy (percent) and source of each number.
        expected: images of each whole dataset; subsets are not comparable.
        obstacle: why this run's settings are not comparable with published numbers, or None.
        table: written as CSV: model, dataset, published, measured, difference (percent), images, verdict, source.
    """
    columns = [*KEYS, "rank"]
    scored = pd.concat(
        [pd.read_parquet(path, columns=columns).astype(dict.fromkeys(KEYS, str)) for path in rows]
    )
    scored["right"] = scored["rank"] == 0
    found = (
        scored.groupby(KEYS)["right"]
        .agg(measured=lambda right: 100 * right.mean(), images="size")
        .reset_index()
    )
    stated = (
        pd.DataFrame(published)
        .rename(columns={"accuracy": "published"})
        .astype({"published": float})
    )
    both = stated.merge(found, on=KEYS, how="inner")
    # Rounded as in the table, so that a difference equal to the tolerance is within.
    both["difference"] = (both["measured"] - both["published"]).round(DECIMALS)
    both["verdict"] = [_verdict(line, expected, obstacle) for line in both.to_dict("records")]
    columns = [*KEYS, "published", "measured", "difference", "images", "verdict", "source"]
    write_table(table, both[columns], f"%.{DECIMALS}f")
    for line in both.to_dict("records"):
        print_lines(
            "{model} on {dataset}: {measured:.2f}, published {published:.2f}: {verdict}".format(
                **line
            )
        )
    print_lines(
        f"{both['verdict'].eq('within').sum()} of {len(both)} published numbers within {TOLERANCE} points"
    )


def _verdict(line: Mapping, expected: Mapping[str, int], obstacle: str | None) -> str:
    if obstacle:
        return f"not comparable: {obstacle}"
    whole = expected.get(line["dataset"])
    if whole and line["images"] != whole:
        return f"not comparable: {line['images']} of {whole} images"
    return "within" if abs(line["difference"]) <= TOLERANCE else "outside"
