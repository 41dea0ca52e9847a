"""Accuracy by slices of datasets, such as the severity of a corruption: columns that a layout adds to the index."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from rib.analysis.counts import different_images, read_indexes
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
        rows, indexes: see `rib.analysis.samples.write_tables`.
        slices: columns; if empty, all that the layouts gave.
        table: CSV with one row per fine-tuned run, dataset, column and value: n images, accuracies and change (percent).

    Raises:
        UserError: no index has a column that is asked for, or two runs were scored on different images.
    """
    there = {path: [name for name in pq.read_schema(path).names if name not in INDEX_COLUMNS] for path in indexes}
    known = sorted({name for names in there.values() for name in names})
    if missing := [name for name in slices if name not in known]:
        choice = f"choose from {', '.join(known)}" if known else "no layout gives slices"
        names = ", ".join(path.parts[-3] for path in there)
        raise UserError(f"config, slices: the indexes of {names} have no column '{missing[0]}'; {choice}.")
    values = {}
    for path, names in there.items():
        values |= read_indexes([path], [name for name in slices or known if name in names])
    files, before, lines = files_of(rows), {}, []
    for run in Progress(sorted(files, key=lambda run: run.method != PRETRAINED), desc="reading rows", unit="run"):
        found = _accuracies(files[run], values)
        start, shown = before.setdefault(run.model, (run, found))
        if different := shown.keys() ^ found.keys():
            raise different_images(min(different)[0], start, run)
        if run.method != PRETRAINED:
            lines += [
                (*run.values(RUN_COLUMNS), *key, shown[key], found[key], found[key] - shown[key]) for key in found
            ]
    write_table(table, pd.DataFrame(lines, columns=COLUMNS).assign(conditions=conditions))


def _accuracies(paths: Iterable[Path], values: Mapping[str, pd.DataFrame]) -> dict[tuple, float]:
    """Accuracy of a run in percent by dataset, column, value and number of images."""
    rows, found = read_rows(paths, ["row", "rank"]), {}
    for dataset, index in values.items():
        own, right = index.iloc[rows[dataset]["row"]], (rows[dataset]["rank"] == 0).to_numpy()
        for name in own:
            parts = pd.Series(100.0 * right, own.index).groupby(own[name], observed=True)
            found |= {(dataset, name, value, len(part)): part.mean() for value, part in parts}
    return found
