"""Number of train, select and test images of each dataset. No torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import write_table
from rib.data.splits import SELECT, TEST, TRAIN

PARTS = (TRAIN, SELECT, TEST)


def write_counts(*, datasets: Sequence[str], splits: Sequence[Path], conditions: str, table: Path) -> None:
    """Write dataset, train, select, test (images) and conditions as CSV, from the splits of rib.data.split_dataset."""
    lines = []
    for dataset, path in zip(datasets, splits, strict=True):
        images = pd.read_parquet(path, columns=["part", "images"]).groupby("part")["images"].sum()
        lines.append((dataset, *(int(images.get(name, 0)) for name in PARTS)))
    write_table(table, pd.DataFrame(lines, columns=["dataset", *PARTS]).assign(conditions=conditions))
