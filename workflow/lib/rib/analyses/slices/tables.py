"""Accuracy by slices of datasets, such as the severity of a corruption.

A layout adds columns to the index; images with the same value are a slice.

The mean corruption error of a dataset, mCE (Hendrycks and Dietterich 2019, arXiv 1903.12261,
section 4.1), is 100 times the mean over corruptions of (sum over severities of error / sum over
severities of AlexNet's error), in percent. The catalogue's file of AlexNet's errors lists the
corruptions, fifteen for ImageNet-C.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.progress import Progress, log
from rib.data.dataset import INDEX_COLUMNS
from rib.schema.layout import Layout
from rib.schema.run import PRETRAINED, RUN_COLUMNS, Run
from rib.statistics.counts import RowFiles, different_images, read_indexes
from rib.statistics.inputs import Inputs
from rib.statistics.sample_rows import is_right, read_rows

ACCURACIES = ["n", "before", "after", "change"]
CORRUPTION = ["corruption", "severity"]
SEVERITIES = {1, 2, 3, 4, 5}  # AlexNet's errors are means over these
# AlexNet's errors (percent): {"imagenet_c": {"frost": 82.7, "fog": 81.9}}.
Errors = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Slice:
    """Images of a dataset with certain values in columns of its index."""

    dataset: str
    columns: tuple[str, ...]  # such as ("corruption", "severity")
    values: tuple[object, ...]  # such as ("frost", 3)
    images: int  # number of scored images


@dataclass(frozen=True)
class Splitting:
    """A dataset split into slices by the values of columns of its index."""

    dataset: str
    columns: tuple[str, ...]
    values_of_slices: list[tuple[object, ...]]
    slice_of_row: np.ndarray  # (rows of the index,) index of each image's slice

    @classmethod
    def by_columns(cls, dataset: str, index: pd.DataFrame) -> "Splitting":
        """Split a dataset by all columns of an index, such as corruption and severity.

        Each combination of values that occurs, such as ("frost", 3), is a slice; slices are sorted.

        Args:
            index: one row per image, only with these columns.
        """
        columns = tuple(str(column) for column in index)
        groups = index.groupby(list(columns), observed=True)
        sorted_combinations = groups.size().index.to_frame().to_numpy().tolist()
        values_of_slices = [tuple(combination) for combination in sorted_combinations]
        return cls(dataset, columns, values_of_slices, groups.ngroup().to_numpy())


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: accuracy_by_slice, corruptions (by severity), mce (mean error)."""
    params = inputs.params
    return slice_tables(
        inputs.rows(params["methods"]),
        columns=params["columns"],
        relative_errors=params["relative_errors"],
        comparable=params["comparable"],
    )


def slice_tables(
    files: RowFiles,
    *,
    columns: Sequence[str],
    relative_errors: Errors,
    comparable: Mapping[str, Sequence[str]],
) -> dict[str, pd.DataFrame]:
    """Accuracies before and after fine-tuning by the values of columns of the indexes.

    Args:
        files: rows of all runs except curves.
        columns: columns of the indexes; none: all that the layouts gave.
        relative_errors: AlexNet's errors (percent), such as {"imagenet_c": {"frost": 82.7, "fog":
            81.9}}.
        comparable: by dataset, the models that see its images as the models of published errors
            did, such as {"imagenet_c": ["resnet50"]}.

    Returns:
        accuracy_by_slice: by fine-tuned run, dataset, column and value: n images, accuracies and
        change (percent).
        corruptions: the same by corruption and severity, for datasets that have both.
        mce: mean corruption errors (percent) by fine-tuned run and dataset, with comparable, yes or
        no.

    Raises:
        UserError: no index has a column that is asked for, or two runs were scored on different
            images.
    """
    splittings = _splittings(files.indexes, columns)
    by_slice_lines = []
    corruption_lines = []
    for run, image_slice, before, after in _compare_runs(files, splittings):
        run_and_dataset = (*run.values(RUN_COLUMNS), image_slice.dataset)
        accuracies = (image_slice.images, before, after, after - before)
        if image_slice.columns == tuple(CORRUPTION):
            corruption_lines.append((*run_and_dataset, *image_slice.values, *accuracies))
        else:
            (column,) = image_slice.columns
            (value,) = image_slice.values
            by_slice_lines.append((*run_and_dataset, column, value, *accuracies))
    keys = [*RUN_COLUMNS, "dataset"]
    by_slice = pd.DataFrame(by_slice_lines, columns=[*keys, "slice", "value", *ACCURACIES])
    corruptions = pd.DataFrame(corruption_lines, columns=[*keys, *CORRUPTION, *ACCURACIES])
    mce = mean_corruption_errors(corruptions, relative_errors)
    mce["comparable"] = _comparable(mce, comparable)
    return {"accuracy_by_slice": by_slice, "corruptions": corruptions, "mce": mce}


def _splittings(indexes: Sequence[Path], columns: Sequence[str]) -> list[Splitting]:
    """How datasets are split, one per dataset and column; also by corruption with severity."""
    columns_of_index = {}
    for path in indexes:
        names = pq.read_schema(path).names
        columns_of_index[path] = [name for name in names if name not in INDEX_COLUMNS]
    all_columns = sorted({name for names in columns_of_index.values() for name in names})
    _refuse_missing_columns(columns, all_columns, indexes)
    chosen_columns = columns if columns else all_columns
    splittings = []
    for path, columns_of_dataset in columns_of_index.items():
        dataset = Layout.dataset_of(path)
        index = read_indexes([path], columns_of_dataset)[dataset]
        for name in chosen_columns:
            if name in columns_of_dataset:
                splittings.append(Splitting.by_columns(dataset, index[[name]]))
        if set(CORRUPTION) <= set(columns_of_dataset):
            splittings.append(Splitting.by_columns(dataset, index[CORRUPTION]))
    return splittings


def _refuse_missing_columns(
    columns: Sequence[str], all_columns: Sequence[str], indexes: Iterable[Path]
) -> None:
    """Raises a UserError if a column is in no index; `all_columns` are in at least one."""
    missing = [name for name in columns if name not in all_columns]
    if not missing:
        return
    choice = "no layout gives slices"
    if all_columns:
        choice = f"choose from {', '.join(all_columns)}"
    datasets = ", ".join(Layout.dataset_of(path) for path in dict.fromkeys(indexes))
    raise UserError(
        f"config, slices: the indexes of {datasets} have no column '{missing[0]}'; {choice}."
    )


def mean_corruption_errors(table: pd.DataFrame, relative_errors: Errors) -> pd.DataFrame:
    """mCE (percent) before and after fine-tuning, of each run and dataset of `relative_errors`.

    It is the mean over exactly the corruptions with an AlexNet error; other corruptions do not
    count. A dataset that lacks one of them, at one of the severities 1 to 5, has no mCE, and the
    log says why: a mean over other corruptions could not be compared with anything.

    Args:
        table: columns of the run, dataset, corruption, severity, and accuracies before and after
            (percent); one row per run, dataset, corruption and severity.
        relative_errors: AlexNet's errors (percent), such as {"imagenet_c": {"frost": 82.7, "fog":
            81.9}}.

    Returns:
        run, dataset, before, after, change.
    """
    is_counted = pd.Series(False, index=table.index)
    for dataset, alexnet in relative_errors.items():
        of_dataset = table["dataset"] == dataset
        missing = _missing_corruptions(table[of_dataset], alexnet)
        if missing:
            log.warning(
                "%s has no mCE, which is the mean over all corruptions of its file of "
                "relative_errors, each at severities 1 to 5; missing are %s. Evaluate these "
                "images, too.",
                dataset,
                ", ".join(missing),
            )
        else:
            is_counted |= of_dataset & table["corruption"].isin(list(alexnet))
    keys = [*RUN_COLUMNS, "dataset"]
    over_severities = table[is_counted].groupby([*keys, "corruption"], sort=False)
    errors = 100 - over_severities[["before", "after"]].mean()
    datasets = errors.index.get_level_values("dataset")
    corruptions = errors.index.get_level_values("corruption")
    alexnet_errors = []
    for dataset, corruption in zip(datasets, corruptions, strict=True):
        alexnet_errors.append(relative_errors[dataset][corruption])
    percent_of_alexnet = 100 * errors.div(np.array(alexnet_errors, float), axis=0)
    means = percent_of_alexnet.groupby(keys, sort=False).mean().reset_index()
    return means.assign(change=means["after"] - means["before"])


def _comparable(mce: pd.DataFrame, comparable: Mapping[str, Sequence[str]]) -> list[str]:
    """Whether each row of `mce` can be compared with published errors: ["yes", "no"]."""
    answers = []
    for model, dataset in zip(mce["model"], mce["dataset"], strict=True):
        is_comparable = model in comparable.get(dataset, ())
        answers.append("yes" if is_comparable else "no")
    return answers


def _missing_corruptions(table: pd.DataFrame, alexnet: Mapping[str, float]) -> list[str]:
    """Corruptions without rows, for a warning: ["frost", "fog (severity 4, 5)"]."""
    severities_of = table.groupby("corruption")["severity"].agg(set).to_dict()
    missing = []
    for corruption in alexnet:
        missing_severities = SEVERITIES - severities_of.get(corruption, set())
        if missing_severities == SEVERITIES:
            missing.append(corruption)
        elif missing_severities:
            numbers = ", ".join(map(str, sorted(missing_severities)))
            missing.append(f"{corruption} (severity {numbers})")
    return missing


def _compare_runs(
    row_files: RowFiles, splittings: Sequence[Splitting]
) -> Iterator[tuple[Run, Slice, float, float]]:
    """Yields a fine-tuned run, a slice, and accuracies (percent) before and after."""
    files = row_files.of_runs()
    pretrained_runs = [run for run in files if run.method == PRETRAINED]
    fine_tuned_runs = [run for run in files if run.method != PRETRAINED]
    pretrained_run_of: dict[str, Run] = {}  # by model
    accuracies_before_of: dict[str, list[tuple[Slice, float]]] = {}  # by model
    runs = [*pretrained_runs, *fine_tuned_runs]
    for run in Progress(runs, desc="reading rows", unit="run"):
        accuracies = list(_accuracies(run.method, files[run], splittings))
        if run.method == PRETRAINED:
            pretrained_run_of[run.model] = run
            accuracies_before_of[run.model] = accuracies
            continue
        accuracies_before = accuracies_before_of[run.model]
        compared_runs = (pretrained_run_of[run.model], run)
        _refuse_different_slices(accuracies_before, accuracies, compared_runs)
        slices_with_accuracies = zip(accuracies_before, accuracies, strict=True)
        for (image_slice, before), (_, after) in slices_with_accuracies:
            yield run, image_slice, before, after


def _refuse_different_slices(
    accuracies_before: Sequence[tuple[Slice, float]],
    accuracies: Sequence[tuple[Slice, float]],
    runs: tuple[Run, Run],
) -> None:
    """Raises a UserError: slices of two runs differ if these were scored on different images."""
    slices_before = [image_slice for image_slice, _ in accuracies_before]
    slices_after = [image_slice for image_slice, _ in accuracies]
    for before, after in zip_longest(slices_before, slices_after):
        if before != after:
            different = before if after is None else after
            raise different_images(different.dataset, *runs)


def _accuracies(
    method: str, paths: Iterable[Path], splittings: Iterable[Splitting]
) -> Iterator[tuple[Slice, float]]:
    """Slices of a run that have images, with the accuracy (percent) on each."""
    rows = read_rows(method, paths, ["row", "rank"])
    for splitting in splittings:
        rows_of_dataset = rows[splitting.dataset]
        slices = len(splitting.values_of_slices)
        slice_of_image = splitting.slice_of_row[rows_of_dataset["row"]]
        images = np.bincount(slice_of_image, minlength=slices)
        right = np.bincount(slice_of_image, weights=is_right(rows_of_dataset), minlength=slices)
        for number in np.flatnonzero(images):
            image_slice = Slice(
                dataset=splitting.dataset,
                columns=splitting.columns,
                values=splitting.values_of_slices[number],
                images=images[number],
            )
            yield image_slice, 100 * right[number] / images[number]
