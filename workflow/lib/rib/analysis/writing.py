"""Writing of the tables that analyses return. No torch."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rib.base.files import write_table

SIX_DECIMALS = "%.6f"
# Formats of numbers in other files, by name without ending; learning rates are small.
FORMATS = {"cost": "%.2f", "learning_rates": "%.8g", "training": "%.8g"}


def write_tables(
    tables: pd.DataFrame | Mapping[str, pd.DataFrame],
    outputs: Mapping[str, Path],
    **last_columns: str,
) -> None:
    """Write tables as CSV.

    Args:
        tables: by name; a single one is named `table`.
        outputs: the files to write, by name of the table.
        last_columns: columns, such as `conditions`, to add to each table, each with one text for
            all rows.
    """
    if isinstance(tables, pd.DataFrame):
        tables = {"table": tables}
    for name, table in tables.items():
        path = outputs[name]
        number_format = FORMATS.get(path.stem, SIX_DECIMALS)
        write_table(path, table.assign(**last_columns), number_format)
