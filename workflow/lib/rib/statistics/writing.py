"""Writes the tables that analyses return, with the fit of the runs in their rows. No torch."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import write_table, write_text
from rib.base.text import printable_cell
from rib.schema.run import RUN_COLUMNS
from rib.statistics.fit import mark_columns, marked
from rib.statistics.inputs import Inputs

NUMBERS = "%.6f"  # format of numbers in tables
# Other formats by file; learning rates are small.
FORMATS = {"cost": "%.2f", "learning_rates": "%.8g", "training": "%.8g"}


def make_tables(
    analysis: str,
    inputs: Inputs,
    outputs: Mapping[str, Path],
    conditions: str,
    without_fit: Sequence[str] = (),
) -> None:
    """Write what the function `tables` of an analysis returns.

    Args:
        analysis: its name, such as cost; rib.analyses.cost.tables has the function.
        inputs: with an input `fit`, the tables get columns with the fit of their runs.
        outputs: file by name, such as {"cost.csv": Path("cost.csv"), "summary.md": ...}.
        conditions: value of the last column of each table.
        without_fit: names of tables without columns of the fit.
    """
    fit = read_fit(inputs.path("fit")) if "fit" in inputs.files else None
    module = importlib.import_module(f"rib.analyses.{analysis}.tables")
    for name, content in module.tables(inputs).items():
        if isinstance(content, str):
            write_text(outputs[name], content)
        else:
            write_tables(
                {name: content},
                {name: outputs[f"{name}.csv"]},
                fit=None if name in without_fit else fit,
                conditions=conditions,
            )


def write_tables(
    tables: Mapping[str, pd.DataFrame],
    outputs: Mapping[str, Path],
    fit: pd.DataFrame | None = None,
    **last_columns: str,
) -> None:
    """Write tables as CSV.

    Args:
        outputs: file by name of the table.
        fit: fit.csv as texts (`read_fit`), to add the columns of `with_fit`.
        last_columns: values of columns that are added to each table, such as `conditions`.
    """
    for name, table in tables.items():
        path = outputs[name]
        numbers = FORMATS.get(path.stem, NUMBERS)
        table = table.assign(**last_columns)
        if fit is not None:
            table = with_fit(table, fit, numbers)
        write_table(path, table, numbers)


def read_fit(path: Path) -> pd.DataFrame:
    """The table fit.csv as texts, so runs are compared as they are written."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def with_fit(table: pd.DataFrame, fit: pd.DataFrame, numbers: str = NUMBERS) -> pd.DataFrame:
    """The table with the columns fit and underfitted, if it has the columns model and method.

    They are the mean fit (percent, empty if unknown) of the runs that a row covers, and the number
    of underfitted ones. If `fit` has a column other_rate, the number of runs with yes is added,
    too. A row covers the runs that agree with it in all run columns of its table; target `mean`
    stands for all targets and seeds. With a column `chosen`, it covers the runs of that method.
    Tables without runs, or with a column fit, are returned unchanged.

    Args:
        fit: texts: columns of the run, fit, underfitted (yes or no) and perhaps other_rate.
        numbers: format of the numbers that identify runs, as they are written.
    """
    is_of_runs = "model" in table and "method" in table
    if not is_of_runs or "fit" in table:
        return table
    # Runs are compared as written: a seed or size may be a number in one table and a text in the
    # other.
    columns_of_run = [column for column in (*RUN_COLUMNS, "chosen") if column in table]
    runs_of_rows = pd.DataFrame(
        {column: _as_written(table[column], numbers) for column in columns_of_run}
    )
    runs = pd.DataFrame({column: _as_written(fit[column], NUMBERS) for column in fit.columns})
    runs["fit"] = pd.to_numeric(runs["fit"])
    marks = marked(runs_of_rows, runs)
    counts = {column: marks[column].to_numpy() for column in mark_columns(marks)}
    return table.assign(fit=_as_written(marks["fit"], NUMBERS).to_numpy(), **counts)


def _as_written(column: pd.Series, numbers: str) -> pd.Series:
    """Texts as in the file; with the format `%.6f`, 0.5 becomes `0.500000`."""
    has_fractions = column.dtype.kind == "f"
    texts = []
    for cell in column.tolist():
        if isinstance(cell, str):
            texts.append(printable_cell(cell))
        elif pd.isna(cell):
            texts.append("")
        elif has_fractions:
            texts.append(numbers % cell)
        else:
            texts.append(str(cell))
    return pd.Series(texts, dtype=object)
