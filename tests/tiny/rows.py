"""Evaluation rows of made-up runs, for what counts them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rib.analysis.counts import Rows, rows_of
from rib.config.run import RUN_COLUMNS, Run


def split(table: pd.DataFrame) -> Iterator[tuple[Run, pd.DataFrame]]:
    """The rows of each run."""
    for run, own in table.groupby(RUN_COLUMNS, observed=True, sort=False):
        yield Run(**dict(zip(RUN_COLUMNS, run, strict=True))), own


def by_runs(*tables: pd.DataFrame) -> Iterator[tuple[Run, Rows]]:
    """The run and the rows of each run in each table, as if they were read from a file of their own."""
    return itertools.chain.from_iterable(map(rows_of, tables))


def write_rows(folder: Path, table: pd.DataFrame, name: str = "rows") -> list[Path]:
    """A file of rows in the folder of each run."""
    paths = []
    for run, own in split(table):
        paths.append(folder / str(run) / f"{name}.parquet")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        own.to_parquet(paths[-1])
    return paths
