"""Number of train, select and test images of each dataset. No torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rib.data.splits import SELECT, TEST, TRAIN

PARTS = (TRAIN, SELECT, TEST)


def split_table(*, datasets: Sequence[str], splits: Sequence[Path]) -> pd.DataFrame:
    """dataset, train, select and test (images), from the splits of rib.data.split_dataset."""
    rows = []
    for dataset, path in zip(datasets, splits, strict=True):
        split = pd.read_parquet(path, columns=["part", "images"])
        images_of_parts = split.groupby("part")["images"].sum()
        row: dict[str, str | int] = {"dataset": dataset}
        for part in PARTS:
            row[part] = int(images_of_parts.get(part, 0))
        rows.append(row)
    return pd.DataFrame(rows, columns=["dataset", *PARTS])
