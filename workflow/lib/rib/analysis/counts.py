"""Correct predictions per run, dataset and resampling unit (object), from which all accuracies are computed.

Evaluation rows say which image of a dataset's index they are of; the index has its object and class.
Identical images are of one object, also if they are of different datasets.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.parquet import ParquetFile

from rib.base.errors import UserError
from rib.config.run import RUN_COLUMNS, Run, run_of
from rib.data.identity import joined_ids, read_identities

STATE = [*RUN_COLUMNS, "alpha"]
COLUMNS = ["alpha", "dataset", "row", "rank"]  # of rows
AHEAD = 8  # files whose rows are in memory at once
INDEX_COLUMNS = ["object_id", "label"]
SOURCE = "source"  # a further column, for leak-free results: a number of each image's source image

# A scored model state: model, method, target, size, seed, alpha (None unless it is part of a curve).
State = tuple[str, str, str, str, int, float | None]
Index = slice | Sequence[int] | np.ndarray
Shared = Mapping[tuple[str, str], np.ndarray]  # by target and dataset
EVERY = slice(None)  # index of all states or objects
OF_ALL_STATES = ("places", "labels", "images")  # what all states have in common


@dataclass(frozen=True)
class Counts:
    """Correct predictions per object, for every state and dataset of a grid.

    An object with images of several classes occurs once for each class and, in leak-free results,
    for each source image.
    """

    states: list[State]  # sorted states
    datasets: list[str]  # names, in the rows' order
    objects: int  # total number of objects
    places: dict[str, np.ndarray]  # by dataset, (n,) ascending indices of its objects
    labels: dict[
        str, np.ndarray
    ]  # by dataset, (n,) class of each object, an index into the dataset's label space
    images: dict[str, np.ndarray]  # by dataset, (n,) uint16 number of images of each object
    correct: dict[str, np.ndarray]  # by dataset, (states, n) uint16 number of correct predictions
    # For leak-free results, by target and dataset, (n,) bool: objects of the dataset whose source image
    # the target has too, by its id or since images are identical. Pairs without any are left out.
    shared: Shared = field(default_factory=dict)

    def accuracy_on(
        self, dataset: str, weights: np.ndarray, states: Index, objects: Index
    ) -> np.ndarray:
        """Accuracies (replicates, states) in percent, with weights (replicates, all objects); NaN where these are 0."""
        counted = weights[:, self.places[dataset][objects]].astype(np.float64)
        right = counted @ self.correct[dataset][states][:, objects].T.astype(np.float64)
        shown = (counted @ self.images[dataset][objects].astype(np.float64))[:, None]
        return 100 * np.divide(right, shown, where=shown > 0, out=np.full_like(right, np.nan))

    def of(self, states: Sequence[int]) -> "Counts":
        """The counts of some states, by index."""
        correct = {dataset: right[states] for dataset, right in self.correct.items()}
        return replace(self, states=[self.states[place] for place in states], correct=correct)


class Rows(NamedTuple):
    """Evaluation rows of a run; pandas would take most of the time of reading many files."""

    alpha: np.ndarray  # (n,) NaN unless a row is of a curve
    dataset: np.ndarray  # (n,) indices into names
    names: list[str]  # of datasets, also of some without rows
    row: np.ndarray  # (n,) of the dataset's index
    rank: np.ndarray  # (n,) 0 if the prediction is correct


def read_rows_of(paths: Iterable[Path]) -> Iterator[tuple[Run, Rows]]:
    """The run and the rows of each file of evaluation rows (see `rib.config.run.run_of`), read in threads."""
    files = iter(paths)
    with ThreadPoolExecutor(2) as pool:
        while some := list(islice(files, AHEAD)):
            yield from pool.map(_read_rows, some)


def _read_rows(path: Path) -> tuple[Run, Rows]:
    table = ParquetFile(path).read(columns=COLUMNS, use_threads=False)
    names = table["dataset"].dictionary_encode().combine_chunks()
    alpha, row, rank = (table[column].to_numpy() for column in ("alpha", "row", "rank"))
    return run_of(path), Rows(
        alpha, names.indices.to_numpy(), names.dictionary.to_pylist(), row, rank
    )


def rows_of(table: pd.DataFrame) -> Iterator[tuple[Run, Rows]]:
    """The run and the rows of each run in a table of evaluation rows."""
    for key, own in table.groupby(RUN_COLUMNS, observed=True, sort=False):
        dataset, names = pd.factorize(own["dataset"], sort=True)
        alpha, row, rank = (
            own["alpha"].to_numpy(float),
            own["row"].to_numpy(),
            own["rank"].to_numpy(),
        )
        yield (
            Run(**dict(zip(RUN_COLUMNS, key, strict=True))),
            Rows(alpha, dataset, list(names), row, rank),
        )


def count(parts: Iterable[tuple[Run, Rows]], indexes: Mapping[str, pd.DataFrame]) -> Counts:
    """Count correct predictions per state, dataset and object; a UserError if two runs were scored on different images.

    Args:
        parts: runs and evaluation rows of a grid. A part has all rows of its states on its datasets and is reduced before
            the next one is read.
        indexes: index of each dataset that is counted, see `read_objects`.
    """
    scored: dict[str, tuple[Run, np.ndarray, np.ndarray, pd.MultiIndex]] = {}
    found: dict[State, dict[str, np.ndarray]] = {}
    for run, part in parts:
        state = tuple(getattr(run, key) for key in RUN_COLUMNS)
        for alpha, (code, dataset) in product(np.unique(part.alpha), enumerate(part.names)):
            of_alpha = np.isnan(part.alpha) if np.isnan(alpha) else part.alpha == alpha
            own = np.flatnonzero((part.dataset == code) & of_alpha)
            if not len(own) or dataset not in indexes:
                continue
            rows = part.row[own]
            shown = np.sort(rows)
            if dataset not in scored:
                scored[dataset] = (run, shown, *objects_of(indexes[dataset], shown))
            first, images, place, objects = scored[dataset]
            if not np.array_equal(shown, images):
                raise different_images(dataset, first, run)
            correct = np.bincount(place[rows[part.rank[own] == 0]], minlength=len(objects)).astype(
                np.uint16
            )
            found.setdefault((*state, None if np.isnan(alpha) else float(alpha)), {})[dataset] = (
                correct
            )
    states = sorted(found, key=lambda state: (state[:-1], state[-1] or 0))
    for state, (dataset, (first, *_)) in product(states, scored.items()):
        if dataset not in found[state]:
            raise different_images(
                dataset, first, Run(**dict(zip(RUN_COLUMNS, state, strict=False)))
            )
    ids = {
        dataset: objects.get_level_values("object_id") for dataset, (*_, objects) in scored.items()
    }
    every = pd.Index(np.unique(np.concatenate([own.to_numpy(object) for own in ids.values()])))
    return Counts(
        states=states,
        datasets=list(scored),
        objects=len(every),
        places={dataset: every.get_indexer(own) for dataset, own in ids.items()},
        labels={
            name: objects.get_level_values("label").to_numpy()
            for name, (*_, objects) in scored.items()
        },
        images={
            name: np.bincount(place[rows]).astype(np.uint16)
            for name, (_, rows, place, _) in scored.items()
        },
        correct={
            dataset: np.stack([found[state][dataset] for state in states]) for dataset in scored
        },
        shared=shared_objects(
            {name: (indexes[name], rows, place) for name, (_, rows, place, _) in scored.items()},
            {state[STATE.index("target")] for state in states},
        ),
    )


def shared_objects(
    scored: Mapping[str, tuple[pd.DataFrame, np.ndarray, np.ndarray]], targets: Iterable[str]
) -> dict[tuple[str, str], np.ndarray]:
    """`Counts.shared` of the datasets whose indexes have the column `SOURCE`.

    Args:
        scored: by dataset, its index, its scored rows, and the place of each row's object.
    """
    of_index = {name: parts for name, parts in scored.items() if SOURCE in parts[0]}
    sources = {name: index[SOURCE].to_numpy()[rows] for name, (index, rows, _) in of_index.items()}
    shared = {}
    for target, name in product(sorted(sources.keys() & set(targets)), sources):
        of_target = np.isin(sources[name], sources[target])
        if name != target and of_target.any():
            _, rows, place = of_index[name]
            objects = np.bincount(place[rows], weights=of_target)
            shared[target, name] = objects > 0
    return shared


def different_images(dataset: str, run: Run, other: Run) -> UserError:
    """The error that two runs were scored on different images of a dataset."""
    return UserError(
        f"the runs {run} and {other} were scored on different images of {dataset}; delete the folder of the outdated one "
        "in results/<family>/<protocol>/evaluate and run again."
    )


def objects_of(index: pd.DataFrame, rows: np.ndarray) -> tuple[np.ndarray, pd.MultiIndex]:
    """Objects of the given rows of an index: place of each row's object (rows of the index,), sorted (object, class).

    With the column `SOURCE`, an object occurs once for each of its source images.
    """
    keys = [*INDEX_COLUMNS, *([SOURCE] if SOURCE in index else [])]
    groups = index.iloc[rows].groupby(keys, sort=True)
    place = np.zeros(len(index), np.int64)
    place[rows] = groups.ngroup()
    return place, groups.size().index


def read_indexes(
    paths: Iterable[Path], columns: Sequence[str] = INDEX_COLUMNS
) -> dict[str, pd.DataFrame]:
    """Columns of indexes .../{dataset}/{geometry}/index.parquet, by dataset."""
    return {path.parts[-3]: pd.read_parquet(path, columns=list(columns)) for path in paths}


def read_objects(
    paths: Iterable[Path],
    source_groups: Mapping[str, str] | None = None,
    columns: Sequence[str] = INDEX_COLUMNS,
) -> dict[str, pd.DataFrame]:
    """Columns of indexes .../{dataset}/{geometry}/index.parquet, by dataset.

    Objects that have identical images are one: the first of their ids stands for all.

    Args:
        source_groups: for leak-free results, source group by dataset; there is then also the column
            `SOURCE`.
        columns: `object_id`, and others as they are.
    """
    found = read_joined_objects(paths, source_groups, columns)
    return {path.parts[-3]: index for path, index in found.items()}


def read_joined_objects(
    paths: Iterable[Path],
    source_groups: Mapping[str, str] | None = None,
    columns: Sequence[str] = INDEX_COLUMNS,
) -> dict[Path, pd.DataFrame]:
    """`read_objects` by path, for indexes of which several are of one dataset."""
    paths = list(paths)
    every_photo = pa.concat_arrays([read_identities(path) for path in paths])
    needed = [*columns, *(["source_id"] if source_groups is not None else [])]
    indexes = {path: pd.read_parquet(path, columns=needed) for path in paths}
    objects = _joined([index["object_id"] for index in indexes.values()], every_photo)
    for path, joined in zip(paths, objects, strict=True):
        indexes[path] = indexes[path].assign(object_id=joined)
    if source_groups is None:
        return indexes
    ids = []
    for path, index in indexes.items():
        dataset = path.parts[-3]
        group = source_groups.get(dataset, dataset)  # other groups may use the same ids
        ids.append(f"{group}/" + index["source_id"].astype(str))
    numbers = pd.factorize(pd.concat(_joined(ids, every_photo), ignore_index=True))[0]
    ends = np.cumsum([len(index) for index in indexes.values()])[:-1]
    for path, sources in zip(paths, np.split(numbers, ends), strict=True):
        indexes[path] = indexes[path].drop(columns="source_id").assign(**{SOURCE: sources})
    return indexes


def _joined(ids: Sequence[pd.Series], photos: pa.Array) -> list[pd.Series]:
    """Ids of images of several datasets, of which those with identical images are the same."""
    joined = joined_ids(pa.array(pd.concat(ids), pa.string()), photos)
    return [own.map(joined).fillna(own) for own in ids] if joined else list(ids)


def write_counts(counts: Counts, path: Path) -> None:
    """Write counts as .npz; the same counts give the same bytes.

    The file contains `facts` (JSON: states, datasets, objects), `places/<dataset>`, `labels/<dataset>`,
    `images/<dataset>` and `correct/<model>/<dataset>` (see `_packed`), each of which can be read separately, and
    `shared/<target>/<dataset>` for pairs that share source images, of leak-free results.
    """
    facts = {"states": counts.states, "datasets": counts.datasets, "objects": counts.objects}
    arrays = {
        "facts": np.array(json.dumps(facts, default=int))
    }  # seeds have a type that JSON doesn't support
    for dataset in counts.datasets:
        arrays |= {f"{part}/{dataset}": getattr(counts, part)[dataset] for part in OF_ALL_STATES}
    arrays |= {
        f"shared/{target}/{dataset}": objects
        for (target, dataset), objects in counts.shared.items()
    }
    for model in dict.fromkeys(state[0] for state in counts.states):
        own = counts.of([place for place, state in enumerate(counts.states) if state[0] == model])
        arrays |= {
            f"correct/{model}/{name}": _packed(it, counts.images[name])
            for name, it in own.correct.items()
        }
    np.savez_compressed(path, **arrays)


def read_states(path: Path) -> list[State]:
    """The states of counts, without reading their arrays."""
    with np.load(path, allow_pickle=False) as stored:
        return [tuple(state) for state in json.loads(str(stored["facts"]))["states"]]


def read_counts(path: Path) -> Iterable[Counts]:
    """Yield the counts of one model at a time; places still index all objects."""
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        states = [tuple(state) for state in facts["states"]]
        common = {
            part: {name: stored[f"{part}/{name}"] for name in facts["datasets"]}
            for part in OF_ALL_STATES
        }
        pairs = [tuple(name.split("/")[1:]) for name in stored.files if name.startswith("shared/")]
        shared = {
            (target, dataset): stored[f"shared/{target}/{dataset}"] for target, dataset in pairs
        }
        for model in dict.fromkeys(state[0] for state in states):
            yield Counts(
                states=[state for state in states if state[0] == model],
                datasets=facts["datasets"],
                objects=facts["objects"],
                correct={
                    name: _unpacked(stored[f"correct/{model}/{name}"], n)
                    for name, n in common["images"].items()
                },
                shared=shared,
                **common,
            )


def _packed(correct: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Correct predictions as bits, which take a fifth of the time to compress, if each object is one image."""
    return correct if images.max() > 1 else np.packbits(correct.astype(bool), axis=1)


def _unpacked(packed: np.ndarray, images: np.ndarray) -> np.ndarray:
    return (
        packed
        if images.max() > 1
        else np.unpackbits(packed, axis=1, count=len(images)).astype(np.uint16)
    )
