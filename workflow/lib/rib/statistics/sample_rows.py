"""Rows of a run by dataset, and how the predictions of two runs differ. No torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.schema.run import Run
from rib.statistics.counts import different_images

SHARES = ("agreement", "right_to_wrong", "wrong_to_right")


def read_rows(
    method: str, paths: Iterable[Path], columns: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """A run's evaluation rows (one per image) by dataset, in the order of the dataset's index.

    Args:
        method: of the run; files may have rows of other methods, evaluated with it.
        paths: files of all evaluation groups.
        columns: columns to read besides dataset, among them `row`.
    """
    rows_of_parts: dict[str, list[pd.DataFrame]] = {}
    for path in paths:
        table = pq.read_table(path, columns=["method", "dataset", *columns])
        is_of_method = pc.equal(table["method"].cast(pa.string()), method)
        rows = table.filter(is_of_method).drop_columns("method").to_pandas()
        for dataset, group in rows.groupby("dataset", observed=True, sort=False):
            rows_of_parts.setdefault(str(dataset), []).append(group)
    rows_of_dataset = {}
    for dataset, tables in rows_of_parts.items():
        rows_of_dataset[dataset] = parts_together(tables)
    return rows_of_dataset


def parts_together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A run's rows on a dataset that was evaluated in parts, as one job would have written them.

    Args:
        tables: rows of each part; they have the column `row`, and `alpha` if the run is a curve.
    """
    # An empty table, for a part without an image within the budget, would change types of columns.
    tables = [table for table in tables if len(table)] or tables[:1]
    if len(tables) == 1:
        return tables[0]
    order = [column for column in ("alpha", "row") if column in tables[0]]
    return pd.concat(tables).sort_values(order, kind="stable", ignore_index=True)


def is_right(rows: pd.DataFrame) -> np.ndarray:
    """Which predictions are right: (n,) bool, from the column rank of evaluation rows."""
    return rows["rank"].to_numpy() == 0


def compare_predictions(
    before: pd.DataFrame, after: pd.DataFrame, dataset: str, runs: tuple[Run, Run]
) -> dict[str, np.ndarray]:
    """Images on which two runs agree, and images whose prediction becomes wrong or right.

    Args:
        before, after: rows of the pretrained and the fine-tuned run on one dataset (row,
            prediction, rank).
        dataset, runs: named in the error.

    Returns:
        (n,) bool by name: agreement (equal predictions), right_to_wrong and wrong_to_right.

    Raises:
        UserError: the two runs were not scored on the same images.
    """
    if not np.array_equal(before["row"], after["row"]):
        raise different_images(dataset, *runs)
    right_before = is_right(before)
    right_after = is_right(after)
    return {
        "agreement": before["prediction"].to_numpy() == after["prediction"].to_numpy(),
        "right_to_wrong": right_before & ~right_after,
        "wrong_to_right": ~right_before & right_after,
    }
