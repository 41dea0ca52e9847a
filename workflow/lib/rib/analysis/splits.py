"""Number of train, select and test images of each dataset. No torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rib.data.splits import SELECT, TEST, TRAIN

PARTS = (TRAIN, SELECT, TEST)


def split_table(*, datasets: Sequence[str], splits: Sequence[Path]) -> pd.DataFrame:
    """dataset, train, select and test (images), from the splits of rib.data.split_dataset."""
    lines = []
    for dataset, path in zip(datasets, splits, strict=True):
        images = pd.read_parquet(path, columns=["part", "images"]).groupby("part")["images"].sum()
        lines.append((dataset, *(int(images.get(name, 0)) for name in PARTS)))
    return pd.DataFrame(lines, columns=["dataset", *PARTS])
