"""How many images of each dataset train, select and test. No torch."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rib.data.splits import PARTS
from rib.io import write_table


def write_counts(*, splits: Mapping[str, Path], conditions: str, table: Path) -> None:
    """Write the table.

    Args:
        splits: by dataset, what rib.data.splits.write_split wrote.
        conditions: what the numbers hang on besides their columns.
        table: written as CSV: dataset, train, select, test (images), conditions.
    """
    lines = []
    for dataset, path in splits.items():
        images = pd.read_parquet(path, columns=["part", "images"]).groupby("part")["images"].sum()
        lines.append((dataset, *(int(images.get(name, 0)) for name in PARTS)))
    write_table(table, pd.DataFrame(lines, columns=["dataset", *PARTS]).assign(conditions=conditions))
