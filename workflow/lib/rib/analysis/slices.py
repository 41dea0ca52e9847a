"""Accuracy by slices of datasets, such as the severity of a corruption: columns that a layout adds to the index.

The mean corruption error of a dataset, mCE (Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.1), is 100 times the
mean over corruptions of (sum over severities of error / sum over severities of AlexNet's error), in percent. The
corruptions are those of the catalogue's file of AlexNet's errors, fifteen for ImageNet-C.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from rib.analysis.counts import different_images, read_indexes
from rib.analysis.samples import read_rows, right
from rib.base.errors import UserError
from rib.base.progress import Progress, log
from rib.config.run import PRETRAINED, RUN_COLUMNS, by_run
from rib.data.prepared import INDEX_COLUMNS

ACCURACIES = ["n", "before", "after", "change"]
CORRUPTION = ["corruption", "severity"]
SEVERITIES = {1, 2, 3, 4, 5}  # AlexNet's errors are means over these
Errors = Mapping[
    str, Mapping[str, float]
]  # AlexNet's, in percent, by dataset that states them and corruption


def slice_tables(
    *, rows: Iterable[Path], indexes: Sequence[Path], slices: Sequence[str], relative_errors: Errors
) -> dict[str, pd.DataFrame]:
    """Accuracies before and after fine-tuning by the values of columns of the indexes, one run at a time.

    Args:
        rows, indexes: see `rib.analysis.samples.sample_tables`.
        slices: columns; if empty, all that the layouts gave.

    Returns:
        `accuracy_by_slice` by fine-tuned run, dataset, column and value: n images, accuracies and change (percent);
        `corruptions`, the same by corruption and severity, for datasets that have both; `mce` of `mean_corruption_errors`.

    Raises:
        UserError: no index has a column that is asked for, or two runs were scored on different images.
    """
    there = {
        path: [name for name in pq.read_schema(path).names if name not in INDEX_COLUMNS]
        for path in indexes
    }
    known = sorted({name for names in there.values() for name in names})
    if missing := [name for name in slices if name not in known]:
        choice = f"choose from {', '.join(known)}" if known else "no layout gives slices"
        names = ", ".join(path.parts[-3] for path in there)
        raise UserError(
            f"config, slices: the indexes of {names} have no column '{missing[0]}'; {choice}."
        )
    parts = []
    for path, names in there.items():
        ((dataset, index),) = read_indexes([path], names).items()
        parts += [(dataset, index[[name]]) for name in slices or known if name in names]
        parts += [(dataset, index[CORRUPTION])] if {*CORRUPTION} <= {*names} else []
    found = list(_compared(rows, parts))
    single = [
        (*run, name, *columns, *rest)
        for run, name, columns, *rest in found
        if columns != CORRUPTION
    ]
    double = [(*run, name, *rest) for run, name, columns, *rest in found if columns == CORRUPTION]
    corruptions = pd.DataFrame(double, columns=[*RUN_COLUMNS, "dataset", *CORRUPTION, *ACCURACIES])
    by_slice = pd.DataFrame(
        single, columns=[*RUN_COLUMNS, "dataset", "slice", "value", *ACCURACIES]
    )
    mce = mean_corruption_errors(corruptions, relative_errors)
    return {"accuracy_by_slice": by_slice, "corruptions": corruptions, "mce": mce}


def mean_corruption_errors(table: pd.DataFrame, relative_errors: Errors) -> pd.DataFrame:
    """mCE (percent) before and after of each run and dataset of `relative_errors`.

    It is the mean over exactly the corruptions for which AlexNet's error is given. Others of the
    dataset do not count. A dataset that lacks one of them, at one of the severities 1 to 5, has no
    mCE, and the log says why: a mean over other corruptions could not be compared with anything.

    Args:
        table: run, dataset, corruption, severity, and accuracies before and after (percent).
    """
    keys = [*RUN_COLUMNS, "dataset"]
    counted = pd.Series(False, index=table.index)
    for dataset, alexnet in relative_errors.items():
        of_dataset = table["dataset"] == dataset
        missing = _missing_corruptions(table[of_dataset], alexnet)
        if missing:
            log.warning(
                "%s has no mCE, which is the mean over all corruptions of its file of relative_errors, "
                "each at severities 1 to 5; missing are %s. Evaluate these images, too.",
                dataset,
                ", ".join(missing),
            )
        else:
            counted |= of_dataset & table["corruption"].isin(list(alexnet))
    groups = table[counted].groupby([*keys, "corruption"], sort=False)
    errors = 100 - groups[["before", "after"]].mean()
    kinds = [(dataset, corruption) for *_, dataset, corruption in errors.index]
    alexnet_errors = [relative_errors[dataset][corruption] for dataset, corruption in kinds]
    relative = 100 * errors.div(np.array(alexnet_errors, float), axis=0)
    means = relative.groupby(keys, sort=False).mean().reset_index()
    return means.assign(change=means["after"] - means["before"])


def _missing_corruptions(table: pd.DataFrame, alexnet: Mapping[str, float]) -> list[str]:
    """What a dataset's table lacks for its mCE: `frost`, or `fog (severity 4, 5)`."""
    severities = table.groupby("corruption")["severity"].agg(set).to_dict()
    missing = []
    for corruption in alexnet:
        lacking = SEVERITIES - severities.get(corruption, set())
        if lacking == SEVERITIES:
            missing.append(corruption)
        elif lacking:
            missing.append(f"{corruption} (severity {', '.join(map(str, sorted(lacking)))})")
    return missing


def _compared(rows: Iterable[Path], indexes: Iterable[tuple[str, pd.DataFrame]]) -> Iterator[tuple]:
    """Run, dataset, columns, their values, number of images, accuracies before and after, and change (percent).

    Runs are read one at a time. `indexes` has datasets, and columns of their indexes by whose values they are split.
    """
    splits = []
    for dataset, index in indexes:
        groups = index.groupby(list(index), observed=True)
        values = groups.size().index.to_frame().to_numpy().tolist()
        splits.append((dataset, list(index), values, groups.ngroup().to_numpy()))
    files, before = by_run(rows), {}
    for run in Progress(
        sorted(files, key=lambda run: run.method != PRETRAINED), desc="reading rows", unit="run"
    ):
        found = list(_accuracies(files[run].values(), splits))
        start, shown = before.setdefault(run.model, (run, found))
        pairs = itertools.zip_longest(found, shown, fillvalue=())
        if different := [one or other for one, other in pairs if one[:-1] != other[:-1]]:
            raise different_images(different[0][0], start, run)
        for (*key, after), (*_, was) in zip(found, shown, strict=True):
            if run.method != PRETRAINED:
                yield run.values(RUN_COLUMNS), *key, was, after, after - was


def _accuracies(paths: Iterable[Path], splits: Iterable[tuple]) -> Iterator[tuple]:
    """Dataset, columns, values, number of images and accuracy in percent of each part that has images."""
    rows = read_rows(paths, ["row", "rank"])
    for dataset, columns, values, places in splits:
        part = places[rows[dataset]["row"]]  # the number of each image's part
        n = np.bincount(part, minlength=len(values))
        hits = np.bincount(part, weights=right(rows[dataset]), minlength=len(values))
        for place in np.flatnonzero(n):
            yield dataset, columns, *values[place], n[place], 100 * hits[place] / n[place]
