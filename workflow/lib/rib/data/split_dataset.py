"""Split a dataset's source images into train, select and test."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.progress import log
from rib.data.data_settings import DatasetView
from rib.data.dataset import PreparedDataset
from rib.data.identity import identical_to, read_identities
from rib.data.splits import LEFT_OUT, assign_splits, assign_whole_objects, read_split
from rib.data.view import DatasetFiles, load_whole
from rib.schema.layout import Layout

V = TypeVar("V")


@dataclass(frozen=True)
class EarlierSplit:
    """A dataset that was split before; later datasets inherit its splits."""

    table: Path  # Parquet file with its splits
    index: Path  # of the prepared dataset
    # Whether both are made from the same source images: equal source ids then mean one image.
    same_sources: bool


def split_dataset(
    *,
    files: DatasetFiles,
    view: DatasetView,
    fractions: Mapping[str, float],
    earlier: Sequence[EarlierSplit],
    table: Path,
) -> None:
    """Write the split (train, select or test) of each source image of a dataset.

    Images with the same pixels are one source image, even in different datasets. A source image is
    left out if it links images with different splits in earlier datasets: training or testing on it
    would leak.

    Args:
        files: the dataset, not yet split.
        fractions: of source images, such as `{"train": 0.6, "select": 0.2}`; the rest is `test`.
        earlier: in order; the first dataset that has a source image decides its split.
        table: output, Parquet, one row per source id, sorted by id: source_id, part (its split),
            images (number in the dataset), such as imagenet_val/n01440764/1, train, 50.

    Raises:
        UserError: an index does not say which images are identical, no image is left, or none
            belongs to the pretraining proxy.
    """
    dataset = load_whole(files, view)
    identities = read_identities(files.folder / "index.parquet")
    if dataset.rows is not None:  # the index also has images outside the dataset
        identities = identities.take(pa.array(dataset.rows))
    inherited = {}  # such as {"photos/7": "train"}
    conflicting = set()
    for source, splits in _earlier_splits(dataset, identities, earlier).items():
        if len(set(splits)) == 1:
            inherited[source] = splits[0]
        else:
            conflicting.add(source)
    if conflicting:
        log.warning(
            "%s: left out %d source images that link images which are in different parts of "
            "earlier datasets",
            dataset.name,
            len(conflicting),
        )
    split_of_source = dict.fromkeys(conflicting, LEFT_OUT)
    if view.split_by == "object":
        objects = _without(_object_of_each_source(dataset), conflicting)
        split_of_source.update(assign_whole_objects(objects, fractions, inherited))
    else:
        labels = _without(_class_of_each_source(dataset), conflicting)
        if labels:
            split_of_source.update(assign_splits(labels, fractions, inherited))
    _write(dataset, split_of_source, table)


def _earlier_splits(
    dataset: PreparedDataset, identities: pa.Array, earlier: Iterable[EarlierSplit]
) -> dict[str, list[str]]:
    """Splits of this dataset's source images in earlier ones: {"photos/7": ["train", "test"]}."""
    splits_of_source: dict[str, list[str]] = {}
    for earlier_dataset in earlier:
        split_of_id = {}
        for source_id, split in read_split(earlier_dataset.table).items():
            if split != LEFT_OUT:
                split_of_id[source_id] = split
        # An earlier dataset has a source image if it has its id, or an identical image.
        if earlier_dataset.same_sources:
            _add_splits_by_id(splits_of_source, dataset, split_of_id)
        split_of_identity = _split_of_each_identity(earlier_dataset.index, split_of_id, identities)
        identical = _add_splits_by_identity(
            splits_of_source, dataset, identities, split_of_identity
        )
        if identical > 0:
            log.info(
                "%s: %d images are identical to images of %s, which decides their part",
                dataset.name,
                identical,
                Layout.dataset_of(earlier_dataset.index),
            )
    return splits_of_source


def _add_splits_by_id(
    splits_of_source: dict[str, list[str]],
    dataset: PreparedDataset,
    split_of_id: Mapping[str, str],
) -> None:
    """Add splits by source id: {"photos/7": "train"} adds "train" to {"photos/7": ["test"]}."""
    _, declared_ids = dataset.declared_sources
    for declared_id in declared_ids:
        if declared_id in split_of_id:
            # Identical images with several ids are one source image with one of these ids.
            source = dataset.joined_sources.get(declared_id, declared_id)
            splits_of_source.setdefault(source, []).append(split_of_id[declared_id])


def _add_splits_by_identity(
    splits_of_source: dict[str, list[str]],
    dataset: PreparedDataset,
    identities: pa.Array,
    split_of_identity: Mapping[str, str],
) -> int:
    """Add the splits of earlier identical images to `splits_of_source`; return the number added."""
    source_of_image, sources = dataset.sources
    earlier_identities = pa.array(list(split_of_identity), pa.string())
    rows = np.flatnonzero(identical_to(identities, earlier_identities))
    for row in rows:
        source = sources[source_of_image[row]]
        split = split_of_identity[identities[row].as_py()]
        splits_of_source.setdefault(source, []).append(split)
    return len(rows)


def _split_of_each_identity(
    index: Path, split_of_id: Mapping[str, str], wanted: pa.Array
) -> dict[str, str]:
    """Split by identity (hash of pixels), {"9f86...": "train"}, in an earlier dataset's index.

    Only for `wanted`, the identities in the dataset that is split now.
    """
    identities = read_identities(index)
    rows = pa.array(np.flatnonzero(identical_to(identities, wanted)))
    source_ids = pq.read_table(index, columns=["source_id"])["source_id"].take(rows).to_pylist()
    found = identities.take(rows).to_pylist()
    split_of_identity = {}
    for identity, source_id in zip(found, source_ids, strict=True):
        if source_id in split_of_id:  # a budget may have left the image out
            split_of_identity[identity] = split_of_id[source_id]
    return split_of_identity


def _class_of_each_source(dataset: PreparedDataset) -> dict[str, int]:
    """Label by source id, {"photos/7": 3}; the lowest if a source has images of several classes."""
    source_of_image, sources = dataset.sources
    lowest_label = np.full(len(sources), np.iinfo(np.int64).max)
    np.minimum.at(lowest_label, source_of_image, dataset.labels)
    return dict(zip(sources, lowest_label.tolist(), strict=True))


def _object_of_each_source(dataset: PreparedDataset) -> dict[str, str]:
    """Object by source id, {"photos/7": "photos/ann"}; identical images are of one object."""
    index = dataset.joined_index
    return dict(zip(index["source_id"].to_pylist(), index["object_id"].to_pylist(), strict=True))


def _without(of_source: Mapping[str, V], conflicting: Collection[str]) -> dict[str, V]:
    """The mapping without some source ids."""
    return {source: fact for source, fact in of_source.items() if source not in conflicting}


def _write(dataset: PreparedDataset, split_of_source: Mapping[str, str], table: Path) -> None:
    """Write a row for each source id; ids of identical images have the same split."""
    counts = dataset.index.group_by("source_id").aggregate([("label", "count")])
    counts = counts.sort_by("source_id")
    source_ids = counts["source_id"].to_pylist()
    splits = []
    for source_id in source_ids:
        # Identical images are one source image with the id of one of them.
        source = dataset.joined_sources.get(source_id, source_id)
        splits.append(split_of_source[source])
    columns = {
        "source_id": source_ids,
        "part": splits,
        "images": counts["label_count"].to_pylist(),
    }
    pq.write_table(pa.table(columns), table)
