"""Tables of an analysis, written as by its job."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from rib.analysis.writing import write_tables


def write(
    function: Callable,
    *,
    table: Path | None = None,
    outputs: Mapping[str, Path] | None = None,
    conditions: str | None = None,
    **settings,
) -> None:
    """Write the table, or tables by name, that a function of rib.analysis returns."""
    files = {"table": table} if outputs is None else outputs
    given = {"outputs": files} if "outputs" in inspect.signature(function).parameters else {}
    last = {} if conditions is None else {"conditions": conditions}
    write_tables(function(**settings, **given), files, **last)
