"""Writing of the tables that analyses return. No torch."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rib.base.files import write_table

# By file, the format of numbers without six decimals; learning rates are small.
FORMATS = {"cost": "%.2f", "learning_rates": "%.8g", "training": "%.8g"}


def write_tables(
    tables: pd.DataFrame | Mapping[str, pd.DataFrame], outputs: Mapping[str, Path], **last: str
) -> None:
    """Write tables as CSV by name, a single one as `table`, with the values of last columns, such as `conditions`."""
    for name, table in ({"table": tables} if isinstance(tables, pd.DataFrame) else tables).items():
        write_table(outputs[name], table.assign(**last), FORMATS.get(outputs[name].stem, "%.6f"))
