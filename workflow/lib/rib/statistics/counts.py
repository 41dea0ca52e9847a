"""Right answers per run, dataset and object, from which all accuracies are computed.

The bootstrap resamples objects: images that show the same thing and so are not independent, such as
one emoji in the styles of several vendors. Evaluation rows name images of a dataset's index, which
has their object and class. Identical images belong to one object, even in different datasets.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.parquet import ParquetFile

from rib.base.errors import UserError
from rib.data.identity import joined_ids, read_identities
from rib.schema.layout import Layout
from rib.schema.run import RUN_COLUMNS, Run
from rib.statistics.objects import Indices, Objects, join_ids
from rib.statistics.scored_state import ScoredState, run_of_row

COLUMNS = ["method", "alpha", "dataset", "row", "rank"]
FILES_AHEAD = 8  # files in memory at once
INDEX_COLUMNS = ["object_id", "label"]
# Column for leak-free results, which leave out images made from the same source image as an image
# of the target: number of each image's source image.
SOURCE = "source"


@dataclass(frozen=True)
class RowFiles:
    """Files with evaluation rows (one per network and image), and indexes (images of datasets)."""

    # .../{model}/{target}/{entry}/{size}/{seed}/{evaluation group}.parquet; a file has the rows of
    # all methods that are evaluated together
    rows: Iterable[Path]
    indexes: Sequence[Path]  # one of each dataset
    methods: Collection[str] | None = None  # None reads all

    def of_runs(self) -> dict[Run, list[Path]]:
        """Files with rows of each run, in their order.

        An example is {run: [Path("net/noto/ft/all/0/emoji.parquet")]}. A file may have no rows if
        it is for part of a dataset.
        """
        files: dict[Run, list[Path]] = {}
        for path in self.rows:
            for method in ParquetFile(path).read(columns=["method"])["method"].unique().to_pylist():
                if self.methods is None or method in self.methods:
                    files.setdefault(replace(Layout.run_of(path), method=method), []).append(path)
        return files


@dataclass(frozen=True, kw_only=True)
class Counts(Objects):
    """Right answers per object, for every state (scored network) and dataset of a grid.

    `object_indices` are ascending; `images` are uint16, or uint32 if a number doesn't fit.
    """

    states: list[ScoredState]  # sorted
    datasets: list[str]  # in the order of the rows
    # (n,) by dataset: class of each object, an index into the label space.
    labels: dict[str, np.ndarray]
    # (states, n) by dataset: right answers, in the type of `images`.
    correct: dict[str, np.ndarray]

    def accuracy_on(
        self, dataset: str, weights: np.ndarray, states: Indices, objects: Indices
    ) -> np.ndarray:
        """Accuracy of each state on a dataset, (replicates, states), in percent.

        Args:
            weights: (replicates, objects of all datasets), how often a bootstrap replicate counts
                each object. A replicate without any of the chosen objects has NaN.
            states, objects: the chosen ones, as indices into `states` and the dataset's arrays.
        """
        right_answers = self.correct[dataset][states]
        return 100 * self.resampled_means(dataset, weights, right_answers, objects)

    def select_states(self, indices: Sequence[int]) -> "Counts":
        """Counts of the states with these indices, in their order."""
        states = [self.states[i] for i in indices]
        correct = {dataset: of_states[indices] for dataset, of_states in self.correct.items()}
        return replace(self, states=states, correct=correct)

    def without_curves(self) -> "Counts":
        """Counts without curves: runs with a network for each alpha, 0 to 1."""
        return self.select_states(
            [i for i, state in enumerate(self.states) if not state.is_on_curve]
        )


class RowArrays(NamedTuple):
    """Evaluation rows (one per image) as arrays; with pandas, reading many files would be slow."""

    alpha: np.ndarray  # (n,) position on a curve, or NaN
    dataset_number: np.ndarray  # (n,) indices into dataset_names
    dataset_names: list[str]  # some may have no rows
    index_row: np.ndarray  # (n,) row of the dataset's index, which names the image
    rank: np.ndarray  # (n,) 0 if the prediction is right


NO_ROWS = RowArrays(
    alpha=np.array([], np.float64),
    dataset_number=np.array([], np.int32),
    dataset_names=[],
    index_row=np.array([], np.int32),
    rank=np.array([], np.int16),
)


def read_rows_of(files: RowFiles) -> Iterator[tuple[Run, RowArrays]]:
    """Yield each run with its evaluation rows as arrays, in the order of the files.

    Files for parts of one dataset, which come one after the other, count as one file.
    """
    for _, files_of_parts in groupby(_read_files(files.rows), key=_entry_and_datasets):
        read_files = list(files_of_parts)
        methods = np.concatenate([file.methods for file in read_files])
        rows = _rows_together([file.rows for file in read_files])
        for method in dict.fromkeys(methods.tolist()):
            if files.methods is None or method in files.methods:
                yield replace(read_files[0].run, method=method), _rows_at(rows, methods == method)


class FileRows(NamedTuple):
    """Evaluation rows of a file, of one or several methods."""

    run: Run  # from the names of folders; its method may be a name for several
    methods: np.ndarray  # (n,) method of each row
    rows: RowArrays


def _read_files(paths: Iterable[Path]) -> Iterator[FileRows]:
    """Yields the content of each file that has rows; at most `FILES_AHEAD` files are in memory."""
    remaining_paths = iter(paths)
    with ThreadPoolExecutor(2) as pool:
        next_paths = list(islice(remaining_paths, FILES_AHEAD))
        while next_paths:
            for file in pool.map(_read_rows, next_paths):
                if len(file.methods):  # a part of a dataset may have none within the budget
                    yield file
            next_paths = list(islice(remaining_paths, FILES_AHEAD))


def _entry_and_datasets(file: FileRows) -> tuple[Run, list[str]]:
    """Key of groupby: equal for files with parts of the same dataset, which are read as one."""
    return file.run, file.rows.dataset_names


def _rows_together(rows_of_parts: Sequence[RowArrays]) -> RowArrays:
    """Rows of all parts of a dataset."""
    if len(rows_of_parts) == 1:
        return rows_of_parts[0]
    return RowArrays(
        alpha=np.concatenate([rows.alpha for rows in rows_of_parts]),
        dataset_number=np.concatenate([rows.dataset_number for rows in rows_of_parts]),
        dataset_names=rows_of_parts[0].dataset_names,
        index_row=np.concatenate([rows.index_row for rows in rows_of_parts]),
        rank=np.concatenate([rows.rank for rows in rows_of_parts]),
    )


def _rows_at(rows: RowArrays, is_chosen: np.ndarray) -> RowArrays:
    """The chosen rows; `is_chosen` is (n,) bool."""
    if is_chosen.all():
        return rows
    return RowArrays(
        alpha=rows.alpha[is_chosen],
        dataset_number=rows.dataset_number[is_chosen],
        dataset_names=rows.dataset_names,
        index_row=rows.index_row[is_chosen],
        rank=rows.rank[is_chosen],
    )


def _read_rows(path: Path) -> FileRows:
    """Rows of a file .../{model}/{target}/{method}/{size}/{seed}/{file}; it may have none."""
    table = ParquetFile(path).read(columns=COLUMNS, use_threads=False)
    methods = table["method"].to_numpy()
    if table.num_rows == 0:
        return FileRows(Layout.run_of(path), methods, NO_ROWS)
    datasets = table["dataset"].dictionary_encode().combine_chunks()
    rows = RowArrays(
        alpha=table["alpha"].to_numpy(),
        dataset_number=datasets.indices.to_numpy(),
        dataset_names=datasets.dictionary.to_pylist(),
        index_row=table["row"].to_numpy(),
        rank=table["rank"].to_numpy(),
    )
    return FileRows(Layout.run_of(path), methods, rows)


def rows_by_run(table: pd.DataFrame) -> Iterator[tuple[Run, RowArrays]]:
    """Yield each run with its rows as arrays, from a table of evaluation rows in memory.

    Args:
        table: `RUN_COLUMNS`, alpha (on a curve, else NaN), dataset, row, rank; one row per network
            and image.
    """
    for _, rows_of_run in table.groupby(RUN_COLUMNS, observed=True, sort=False):
        first_row = rows_of_run.iloc[0]
        run = run_of_row(first_row.to_dict())
        dataset_numbers, dataset_names = pd.factorize(rows_of_run["dataset"], sort=True)
        rows = RowArrays(
            alpha=rows_of_run["alpha"].to_numpy(float),
            dataset_number=dataset_numbers,
            dataset_names=list(dataset_names),
            index_row=rows_of_run["row"].to_numpy(),
            rank=rows_of_run["rank"].to_numpy(),
        )
        yield run, rows


@dataclass(frozen=True)
class ScoredImages:
    """Images of a dataset that the first run was scored on, as all must be, and their objects."""

    first_run: Run  # named in errors about a run with other images
    rows: np.ndarray  # (images,) ascending rows of the dataset's index
    # (rows of the index,) index into `objects`; also 0 at rows that are not scored
    object_of_row: np.ndarray
    objects: pd.Index  # sorted, with the levels object_id, label and perhaps `SOURCE`
    images_of_objects: np.ndarray  # (objects,), as in `Counts.images`


def count(
    rows_of_runs: Iterable[tuple[Run, RowArrays]], indexes: Mapping[str, pd.DataFrame]
) -> Counts:
    """Count right answers per state (scored network), dataset and object.

    Args:
        rows_of_runs: runs and their rows, one state and dataset at a time, so that only these are
            in memory.
        indexes: by dataset that is counted, one row per image, with the columns object_id and
            label, and `SOURCE` for leak-free results.

    Raises:
        UserError: two runs were scored on different images.
    """
    scored: dict[str, ScoredImages] = {}  # by dataset
    correct: dict[ScoredState, dict[str, np.ndarray]] = {}
    for run, rows in rows_of_runs:
        for alpha in np.unique(rows.alpha):
            if np.isnan(alpha):
                state = ScoredState(run)
                is_of_state = np.isnan(rows.alpha)
            else:
                state = ScoredState(run, float(alpha))
                is_of_state = rows.alpha == alpha
            for dataset_number, dataset in enumerate(rows.dataset_names):
                is_of_dataset = rows.dataset_number == dataset_number
                chosen = np.flatnonzero(is_of_dataset & is_of_state)
                if not len(chosen) or dataset not in indexes:
                    continue
                index_rows = rows.index_row[chosen]
                is_correct = rows.rank[chosen] == 0
                if dataset not in scored:
                    scored[dataset] = _scored_images(run, index_rows, indexes[dataset])
                images = scored[dataset]
                if not np.array_equal(np.sort(index_rows), images.rows):
                    raise different_images(dataset, images.first_run, run)
                object_of_correct = images.object_of_row[index_rows[is_correct]]
                correct_of_objects = np.bincount(object_of_correct, minlength=len(images.objects))
                correct_of_datasets = correct.setdefault(state, {})
                type_of_counts = images.images_of_objects.dtype
                correct_of_datasets[dataset] = correct_of_objects.astype(type_of_counts)
    states = sorted(correct)
    _refuse_missing_datasets(states, correct, scored)
    return _counts_of(states, correct, scored, indexes)


def _scored_images(first_run: Run, index_rows: np.ndarray, index: pd.DataFrame) -> ScoredImages:
    """Images of the first run on a dataset; `index_rows` (images,) are their rows of the index."""
    rows = np.sort(index_rows)
    object_of_row, objects = objects_of(index, rows)
    images_of_objects = _narrow(np.bincount(object_of_row[rows]))
    return ScoredImages(first_run, rows, object_of_row, objects, images_of_objects)


def _narrow(numbers: np.ndarray) -> np.ndarray:
    """The numbers as uint16 if they fit, since a grid has millions of them, else as uint32."""
    fit = numbers.max() <= np.iinfo(np.uint16).max
    return numbers.astype(np.uint16 if fit else np.uint32)


def _refuse_missing_datasets(
    states: Iterable[ScoredState],
    correct: Mapping[ScoredState, Mapping[str, np.ndarray]],
    scored: Mapping[str, ScoredImages],
) -> None:
    """Raises a UserError if a state was not scored on a dataset that others were scored on."""
    for state in states:
        for dataset, images in scored.items():
            if dataset not in correct[state]:
                raise different_images(dataset, images.first_run, state.run)


def _counts_of(
    states: list[ScoredState],
    correct: Mapping[ScoredState, Mapping[str, np.ndarray]],
    scored: Mapping[str, ScoredImages],
    indexes: Mapping[str, pd.DataFrame],
) -> Counts:
    """Joins the counts of datasets: equal object ids get one index over all datasets."""
    ids_of_dataset = {
        dataset: images.objects.get_level_values("object_id") for dataset, images in scored.items()
    }
    objects, object_indices = join_ids(ids_of_dataset)
    labels = {}
    images_of_objects = {}
    correct_of_states = {}
    scored_rows = {}
    for dataset, images in scored.items():
        labels[dataset] = images.objects.get_level_values("label").to_numpy()
        images_of_objects[dataset] = images.images_of_objects
        correct_of_states[dataset] = np.stack([correct[state][dataset] for state in states])
        scored_rows[dataset] = ScoredRows(indexes[dataset], images.rows, images.object_of_row)
    return Counts(
        states=states,
        datasets=list(scored),
        objects=objects,
        object_indices=object_indices,
        labels=labels,
        images=images_of_objects,
        correct=correct_of_states,
        shared=shared_objects(scored_rows, {state.run.target for state in states}),
    )


@dataclass(frozen=True)
class ScoredRows:
    """Rows of a dataset's index whose images are scored, to find shared source images."""

    index: pd.DataFrame  # with the column `SOURCE` for leak-free results
    rows: np.ndarray  # (images,) positions in the index
    object_of_row: np.ndarray  # (rows of the index,) number of the object that the image shows


def shared_objects(
    scored: Mapping[str, ScoredRows], targets: Iterable[str]
) -> dict[tuple[str, str], np.ndarray]:
    """Objects made from a source image that the target has too, which leak-free results leave out.

    Without the column `SOURCE` in the indexes there are none.

    Args:
        scored: by dataset, its scored images.
        targets: names of datasets; some may not be scored.

    Returns:
        (objects of the dataset,) bool by target and dataset, such as {("noto", "twemoji"): [True,
        False]}. Pairs without such an object are missing.
    """
    sources_of_dataset = {  # source of each scored image
        dataset: of_dataset.index[SOURCE].to_numpy()[of_dataset.rows]
        for dataset, of_dataset in scored.items()
        if SOURCE in of_dataset.index
    }
    shared = {}
    for target in sorted(sources_of_dataset.keys() & set(targets)):
        for dataset, sources in sources_of_dataset.items():
            is_in_target = np.isin(sources, sources_of_dataset[target])
            if dataset == target or not is_in_target.any():
                continue
            object_of_image = scored[dataset].object_of_row[scored[dataset].rows]
            shared_images = np.bincount(object_of_image, weights=is_in_target)
            shared[target, dataset] = shared_images > 0
    return shared


def different_images(dataset: str, run: Run, other_run: Run) -> UserError:
    """Error: two runs were scored on different images of a dataset."""
    return UserError(
        f"the runs {run} and {other_run} were scored on different images of {dataset}; delete the "
        "folder of the outdated one in results/<family>/<protocol>/evaluate and run again."
    )


def objects_of(index: pd.DataFrame, rows: np.ndarray) -> tuple[np.ndarray, pd.Index]:
    """Number the objects in some rows of an index, such as its scored images.

    With the column `SOURCE`, an object occurs once for each of its source images.

    Args:
        index: columns object_id and label, and perhaps `SOURCE`.
        rows: (images,) positions in the index.

    Returns:
        (rows of the index,) number of each row's object, 0 for other rows; and the objects, sorted
        by id, class and source.
    """
    columns = list(INDEX_COLUMNS)
    if SOURCE in index:
        columns.append(SOURCE)
    images_by_object = index.iloc[rows].groupby(columns, sort=True)
    object_of_row = np.zeros(len(index), np.int64)
    object_of_row[rows] = images_by_object.ngroup()
    return object_of_row, images_by_object.size().index


def read_indexes(
    paths: Iterable[Path], columns: Sequence[str] = INDEX_COLUMNS
) -> dict[str, pd.DataFrame]:
    """Columns of each index .../{dataset}/{geometry}/index.parquet, by dataset."""
    index_of_dataset = {}
    for path in paths:
        dataset = Layout.dataset_of(path)
        index_of_dataset[dataset] = pd.read_parquet(path, columns=list(columns))
    return index_of_dataset


def read_objects(
    paths: Iterable[Path],
    source_groups: Mapping[str, str] | None = None,
    columns: Sequence[str] = INDEX_COLUMNS,
) -> dict[str, pd.DataFrame]:
    """Columns of each index .../{dataset}/{geometry}/index.parquet, by dataset.

    Objects with identical images become one, with the first of their ids.

    Args:
        source_groups: source group by dataset, such as {"flat": "fluent", "3d": "fluent"}, for
            leak-free results; adds the column `SOURCE`.
    """
    paths = list(paths)
    identities = pa.concat_arrays([read_identities(path) for path in paths])
    columns_in_file = list(columns)
    if source_groups is not None:
        columns_in_file.append("source_id")
    indexes = [pd.read_parquet(path, columns=columns_in_file) for path in paths]
    # Where images of two datasets are identical, their objects get the same id.
    ids_of_indexes = _join_identical([index["object_id"] for index in indexes], identities)
    indexes = [
        index.assign(object_id=ids) for index, ids in zip(indexes, ids_of_indexes, strict=True)
    ]
    if source_groups is not None:
        indexes = _with_sources(paths, indexes, source_groups, identities)
    return {Layout.dataset_of(path): index for path, index in zip(paths, indexes, strict=True)}


def _with_sources(
    paths: Sequence[Path],
    indexes: Sequence[pd.DataFrame],
    source_groups: Mapping[str, str],
    identities: pa.Array,
) -> list[pd.DataFrame]:
    """Replaces the column source_id by `SOURCE`: equal numbers for images of one source image."""
    # Source images are the same if datasets of one group have the same source_id, or if the images
    # themselves are identical. A dataset without a group is a group itself.
    source_ids = []
    for path, index in zip(paths, indexes, strict=True):
        dataset = Layout.dataset_of(path)  # .../{dataset}/{geometry}/index.parquet
        group = source_groups.get(dataset, dataset)
        # Other groups may use the same ids.
        source_ids.append(f"{group}/" + index["source_id"].astype(str))
    ids_by_content = _join_identical(source_ids, identities)
    ids_of_all_indexes = pd.concat(ids_by_content, ignore_index=True)
    source_numbers, _ = pd.factorize(ids_of_all_indexes)
    ends_of_indexes = np.cumsum([len(index) for index in indexes])
    numbers_of_indexes = np.split(source_numbers, ends_of_indexes[:-1])
    with_sources = []
    for index, numbers in zip(indexes, numbers_of_indexes, strict=True):
        without_id = index.drop(columns="source_id")
        with_sources.append(without_id.assign(**{SOURCE: numbers}))
    return with_sources


def _join_identical(ids: Sequence[pd.Series], identities: pa.Array) -> list[pd.Series]:
    """Ids of each dataset, where `b` becomes `a` if an image of `b` is identical to one of `a`."""
    all_ids = pa.array(pd.concat(ids), pa.string())
    first_id = joined_ids(all_ids, identities)  # {"b": "a"}
    if not first_id:
        return list(ids)
    return [of_dataset.map(first_id).fillna(of_dataset) for of_dataset in ids]


def write_counts(counts: Counts, path: Path) -> None:
    """Write counts as .npz; the same counts give the same bytes.

    The file has `facts` (JSON: {"states": [["net", "ft", "noto", "all", 0, null]], "datasets":
    ["twemoji"], "objects": 120}), `places/<dataset>` (indices of objects), `labels/<dataset>`,
    `images/<dataset>` and `correct/<model>/<dataset>` (right answers, as bits if each object is one
    image), each of which can be read alone, and `shared/<target>/<dataset>` for pairs that share
    source images, in leak-free results.
    """
    facts = {
        "states": [state.column_values() for state in counts.states],
        "datasets": counts.datasets,
        "objects": counts.objects,
    }
    # Any, since NumPy's types take each of the names for its option allow_pickle.
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts))}
    for dataset in counts.datasets:
        arrays[f"places/{dataset}"] = counts.object_indices[dataset]
        arrays[f"labels/{dataset}"] = counts.labels[dataset]
        arrays[f"images/{dataset}"] = counts.images[dataset]
    for (target, dataset), objects in counts.shared.items():
        arrays[f"shared/{target}/{dataset}"] = objects
    for model, states in _states_of_models(counts.states).items():
        counts_of_model = counts.select_states(states)
        for dataset, correct in counts_of_model.correct.items():
            packed = _packed(correct, counts.images[dataset])
            arrays[f"correct/{model}/{dataset}"] = packed
    np.savez_compressed(path, **arrays)


def _states_of_models(states: Sequence[ScoredState]) -> dict[str, list[int]]:
    """Indices of the states of each model: {"lite0": [0, 1], "resnet18": [2]}."""
    states_of_models: dict[str, list[int]] = {}
    for i, state in enumerate(states):
        states_of_models.setdefault(state.run.model, []).append(i)
    return states_of_models


def read_states(path: Path) -> list[ScoredState]:
    """The states of a file of counts, without reading its arrays."""
    with np.load(path, allow_pickle=False) as stored:
        return _stored_states(json.loads(str(stored["facts"])))


def _stored_states(facts: Mapping[str, Any]) -> list[ScoredState]:
    """States from a file's facts, {"states": [["net", "ft", "noto", "all", 0, None]], ...}."""
    states = []
    for model, method, target, size, seed, alpha in facts["states"]:
        run = Run(model=model, target=target, method=method, size=size, seed=seed)
        states.append(ScoredState(run, alpha))
    return states


def read_counts(path: Path) -> Iterable[Counts]:
    """Yield the counts of one model at a time, from the file of `write_counts`.

    Only `states` and `correct` are limited to the model; objects and the other arrays are shared.
    """
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        datasets = facts["datasets"]
        states = _stored_states(facts)
        object_indices = {dataset: stored[f"places/{dataset}"] for dataset in datasets}
        labels = {dataset: stored[f"labels/{dataset}"] for dataset in datasets}
        images = {dataset: stored[f"images/{dataset}"] for dataset in datasets}
        shared = {}
        for name in stored.files:
            if name.startswith("shared/"):
                _, target, dataset = name.split("/")
                shared[target, dataset] = stored[name]
        for model, indices in _states_of_models(states).items():
            correct = {}
            for dataset in datasets:
                packed = stored[f"correct/{model}/{dataset}"]
                correct[dataset] = _unpacked(packed, images[dataset])
            yield Counts(
                states=[states[i] for i in indices],
                datasets=datasets,
                objects=facts["objects"],
                object_indices=object_indices,
                labels=labels,
                images=images,
                correct=correct,
                shared=shared,
            )


def _packed(correct: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Right answers as bits if each object is one image, which compress in a fifth of the time."""
    # `correct` is (states, objects), `images` (objects,): their number for each object.
    if images.max() > 1:
        return correct
    return np.packbits(correct.astype(bool), axis=1)


def _unpacked(packed: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Right answers, (states, objects), as before `_packed`; `images` (objects,) of each object."""
    if images.max() > 1:
        return packed
    return np.unpackbits(packed, axis=1, count=len(images)).astype(np.uint16)
