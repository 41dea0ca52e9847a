"""Evaluation rows of made-up runs, for what counts them."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rib.config.run import RUN_COLUMNS, Run


def by_runs(*tables: pd.DataFrame) -> Iterator[tuple[Run, pd.DataFrame]]:
    """The run and the rows of each run in each table, as if they were read from a file of their own."""
    for table in tables:
        for run, own in table.groupby(RUN_COLUMNS, observed=True, sort=False):
            yield Run(**dict(zip(RUN_COLUMNS, run, strict=True))), own


def write_rows(folder: Path, table: pd.DataFrame, name: str = "rows") -> list[Path]:
    """A file of rows in the folder of each run."""
    paths = []
    for run, own in by_runs(table):
        paths.append(folder / str(run) / f"{name}.parquet")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        own.to_parquet(paths[-1])
    return paths
