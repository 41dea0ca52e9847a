"""Tables of an analysis, written as by its job."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from rib.analysis.writing import write_tables


def write(
    function: Callable,
    *,
    table: Path | None = None,
    outputs: Mapping[str, Path] | None = None,
    conditions: str | None = None,
    fit_of_runs: pd.DataFrame | None = None,
    **settings,
) -> None:
    """Write the table, or tables by name, that a function of rib.analysis returns.

    With `fit_of_runs`, rows of runs have their fit, as rib.analysis.writing.with_fit adds it.
    """
    files = {"table": table} if outputs is None else outputs
    given = {"outputs": files} if "outputs" in inspect.signature(function).parameters else {}
    last = {} if conditions is None else {"conditions": conditions}
    write_tables(function(**settings, **given), files, fit_of_runs, **last)
