"""Accuracy by slices of datasets, such as the severity of a corruption: columns that a layout adds to the index."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from rib.analysis.samples import files_of, read_rows
from rib.base.errors import UserError
from rib.base.files import write_table
from rib.base.progress import Progress
from rib.config.run import PRETRAINED, RUN_COLUMNS
from rib.data.prepared import INDEX_COLUMNS

COLUMNS = [*RUN_COLUMNS, "dataset", "slice", "value", "n", "before", "after", "change"]


def write_slices(
    *, rows: Iterable[Path], indexes: Sequence[Path], slices: Sequence[str], conditions: str, table: Path
) -> None:
    """Write accuracies before and after fine-tuning by the values of columns of the indexes, one run at a time.

    Args:
        rows: Parquet files of all runs except curves; folder names identify the run (see `run_of`).
        indexes: index of each dataset; folder names identify it.
        slices: columns; if empty, all that the layouts gave.
        table: CSV with one row per fine-tuned run, dataset, column and value: `COLUMNS`, with the number of images n,
            both accuracies in percent and their difference.

    Raises:
        UserError: no index has a column that is asked for.
    """
    there = {path.parts[-3]: set(pq.read_schema(path).names).difference(INDEX_COLUMNS) for path in indexes}
    known = sorted(set().union(*there.values()))
    if missing := [name for name in slices if name not in known]:
        choice = f"choose from {', '.join(known)}" if known else "no layout gives slices"
        raise UserError(f"config, slices: the indexes of {', '.join(there)} have no column '{missing[0]}'; {choice}.")
    places = {
        (path.parts[-3], name): pd.factorize(pd.read_parquet(path, columns=[name])[name], sort=True)
        for path in indexes
        for name in slices or known
        if name in there[path.parts[-3]]
    }
    files, before, lines = files_of(rows), {}, []
    ordered = sorted(files, key=lambda run: (run.method != PRETRAINED, *run.values(RUN_COLUMNS)))
    for run in Progress(ordered, desc="reading rows", unit="run"):
        found = _answers(files[run], places)
        if run.method == PRETRAINED:
            before[run.model] = found
            continue
        for (dataset, name), (shown, after) in found.items():
            same, first = before[run.model][dataset, name]
            if not np.array_equal(same, shown):
                raise ValueError("the runs were not scored on the same images")
            for value, n, *right in zip(places[dataset, name][1], shown, first, after, strict=True):
                if n:
                    was, now = (100 * correct / n for correct in right)
                    lines.append((*run.values(RUN_COLUMNS), dataset, name, value, n, was, now, now - was))
    write_table(table, pd.DataFrame(lines, columns=COLUMNS).assign(conditions=conditions))


def _answers(paths: Iterable[Path], places: Mapping) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Images and correct predictions (values,) of a run, by dataset and column."""
    rows, found = read_rows(paths, ["row", "rank"]), {}
    for (dataset, name), (place, values) in places.items():
        own, right = place[rows[dataset]["row"]], rows[dataset]["rank"].to_numpy() == 0
        found[dataset, name] = tuple(np.bincount(part, minlength=len(values)) for part in (own, own[right]))
    return found
