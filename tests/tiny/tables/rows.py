"""Evaluation rows of made-up runs, for what counts them."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rib.schema.run import RUN_COLUMNS, Run
from rib.statistics.counts import RowArrays, rows_by_run


def split(table: pd.DataFrame) -> Iterator[tuple[Run, pd.DataFrame]]:
    """Each run of a table, and its rows."""
    for names, rows_of_run in table.groupby(RUN_COLUMNS, observed=True, sort=False):
        run = Run(**dict(zip(RUN_COLUMNS, names, strict=True)))
        yield run, rows_of_run


def by_runs(*tables: pd.DataFrame) -> Iterator[tuple[Run, RowArrays]]:
    """The run and the rows of each run in each table.

    They are as if they were read from a file of their own.
    """
    for table in tables:
        yield from rows_by_run(table)


def write_rows(folder: Path, table: pd.DataFrame, name: str = "rows") -> list[Path]:
    """Write a file of rows in the folder of each run; gives the files' paths."""
    paths = []
    for run, rows_of_run in split(table):
        path = folder / str(run) / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows_of_run.to_parquet(path)
        paths.append(path)
    return paths
