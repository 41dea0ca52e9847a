"""Tables of an analysis, written as by its job."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from rib.statistics.writing import write_tables


def write(
    function: Callable,
    *,
    table: Path | None = None,
    outputs: Mapping[str, Path] | None = None,
    conditions: str | None = None,
    fit_of_runs: pd.DataFrame | None = None,
    **settings,
) -> None:
    """Write the table, or tables by name, that a function of rib.statistics returns.

    Args:
        table: file of the one table.
        outputs: instead, files of tables by name.
        conditions: of the grid, which `write_tables` writes into a last column.
        fit_of_runs: fit of the runs in rows, as rib.statistics.writing.with_fit adds it.
        settings: arguments of the function.
    """
    files = {"table": table} if outputs is None else outputs
    returned = function(**settings)
    tables = {"table": returned} if outputs is None else returned
    last_columns = {} if conditions is None else {"conditions": conditions}
    write_tables(tables, files, fit_of_runs, **last_columns)
