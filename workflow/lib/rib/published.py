"""Accuracies of pretrained models beside those that their publishers state: does this pipeline measure what they do?"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from rib.io import log, write_table

TOLERANCE = 0.2  # percentage points; other decoders and precisions move a few images of 50,000
DECIMALS = 3  # of what the table shows
KEYS = ["model", "dataset"]


def compare(
    *,
    rows: Iterable[Path],
    published: Iterable[Mapping],
    expected: Mapping[str, int],
    obstacle: str | None,
    table: Path,
) -> None:
    """Write a line per published number: what was measured, how far it is off, and the verdict.

    Args:
        rows: evaluation rows of the pretrained models.
        published: model, dataset, accuracy (percent) and source of each number.
        expected: images of each dataset when it is whole; others than that many can't be compared exactly.
        obstacle: why this run's settings are not those of published numbers, None where they are.
        table: written as CSV: model, dataset, published, measured, difference (percent), images, verdict, source.
    """
    parts = [pd.read_parquet(path, columns=[*KEYS, "label", "prediction"]) for path in rows]
    right = pd.concat(
        [part.assign(right=part["label"] == part["prediction"]).astype(dict.fromkeys(KEYS, str)) for part in parts]
    )
    found = right.groupby(KEYS)["right"].agg(measured=lambda answers: 100 * answers.mean(), images="size").reset_index()
    stated = pd.DataFrame(published).rename(columns={"accuracy": "published"}).astype({"published": float})
    both = stated.merge(found, on=KEYS, how="inner")
    # As the table shows it: a difference of the tolerance itself is within, whatever rounding makes of it.
    both["difference"] = (both["measured"] - both["published"]).round(DECIMALS)
    both["verdict"] = [_verdict(line, expected, obstacle) for line in both.to_dict("records")]
    columns = [*KEYS, "published", "measured", "difference", "images", "verdict", "source"]
    write_table(table, both[columns], f"%.{DECIMALS}f")
    for line in both.to_dict("records"):
        log.info("%(model)s on %(dataset)s: %(measured).2f, published %(published).2f: %(verdict)s", line)
    log.info("%d of %d published numbers within %.1f points", both["verdict"].eq("within").sum(), len(both), TOLERANCE)


def _verdict(line: Mapping, expected: Mapping[str, int], obstacle: str | None) -> str:
    if obstacle:
        return f"not comparable: {obstacle}"
    whole = expected.get(line["dataset"])
    if whole and line["images"] != whole:
        return f"not comparable: {line['images']} of {whole} images"
    return "within" if abs(line["difference"]) <= TOLERANCE else "outside"
