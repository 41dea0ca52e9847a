"""Number of train, select and test images of each dataset. No torch."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rib.data.splits import SELECT, TEST, TRAIN

PARTS = (TRAIN, SELECT, TEST)


def split_table(splits: Mapping[str, Path]) -> pd.DataFrame:
    """Number of images of each dataset in each split: dataset, train, select and test.

    Args:
        splits: files of rib.data.split_dataset, by dataset.
    """
    rows = []
    for dataset, path in splits.items():
        split = pd.read_parquet(path, columns=["part", "images"])
        images_of_parts = split.groupby("part")["images"].sum()
        row: dict[str, str | int] = {"dataset": dataset}
        for part in PARTS:
            row[part] = int(images_of_parts.get(part, 0))
        rows.append(row)
    return pd.DataFrame(rows, columns=["dataset", *PARTS])
