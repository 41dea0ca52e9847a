"""Splitting a dataset's source images into train, select and test."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.progress import log
from rib.data.identity import identical_to, read_identities
from rib.data.prepared import PreparedDataset
from rib.data.settings import DatasetView
from rib.data.splits import LEFT_OUT, assign_splits, read_split
from rib.data.view import DatasetFiles, load_whole


@dataclass(frozen=True)
class EarlierSplit:
    """A dataset that was split before, whose source images keep their split in later datasets."""

    table: Path  # its split
    index: Path  # of the prepared dataset
    same_sources: bool  # whether it is of the same source group, in which equal ids are one source


def split_dataset(
    *,
    files: DatasetFiles,
    view: DatasetView,
    fractions: Mapping[str, float],
    earlier: Sequence[EarlierSplit],
    table: Path,
) -> None:
    """Split a dataset's source images and write the split of each.

    Identical photos are one source image, also if they are of several datasets. A source image that
    links images which earlier datasets have in different splits is left out, since training or
    testing on it would leak.

    Args:
        files: the dataset, not yet split.
        fractions: fractions of source images in `train` and `select`, with a sum below 1; the rest
            is `test`.
        earlier: in order; the first one that has a source image decides its split.
        table: written as Parquet, one row per source id, sorted by id: source_id, part (its split),
            images (in the dataset).

    Raises:
        UserError: an index does not say which photos are identical, or see `load_whole`.
    """
    dataset = load_whole(files, view)
    identities = read_identities(files.folder / "index.parquet", required=True)
    if dataset.rows is not None:
        identities = identities.take(pa.array(dataset.rows))
    inherited = {}
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
    labels = {}
    for source, label in _class_of_each_source(dataset).items():
        if source not in conflicting:
            labels[source] = label
    split_of_source = dict.fromkeys(conflicting, LEFT_OUT)
    if labels:
        split_of_source.update(assign_splits(labels, fractions, inherited))
    _write(dataset, split_of_source, table)


def _earlier_splits(
    dataset: PreparedDataset, identities: pa.Array, earlier: Iterable[EarlierSplit]
) -> dict[str, list[str]]:
    """The splits in which earlier datasets have images of each source image, in their order.

    An earlier dataset has an image of a source image if both have a source id in common, or a
    photo.
    """
    source_of_image, sources = dataset.sources
    _, declared = dataset.declared_sources
    splits_of_source: dict[str, list[str]] = {}
    for earlier_dataset in earlier:
        split_of_id = read_split(earlier_dataset.table)
        split_of_id = {name: split for name, split in split_of_id.items() if split != LEFT_OUT}
        if earlier_dataset.same_sources:
            for name in declared:
                if name in split_of_id:
                    source = dataset.joined_sources.get(name, name)
                    splits_of_source.setdefault(source, []).append(split_of_id[name])
        split_of_photo = _split_of_each_photo(earlier_dataset.index, split_of_id, identities)
        photos = pa.array(list(split_of_photo), pa.string())
        rows = np.flatnonzero(identical_to(identities, photos))
        for row in rows:
            source = sources[source_of_image[row]]
            split = split_of_photo[identities[row].as_py()]
            splits_of_source.setdefault(source, []).append(split)
        if len(rows) > 0:
            log.info(
                "%s: %d images are identical to images of %s, which decides their part",
                dataset.name,
                len(rows),
                earlier_dataset.index.parts[-3],
            )
    return splits_of_source


def _split_of_each_photo(
    index: Path, split_of_id: Mapping[str, str], photos: pa.Array
) -> dict[str, str]:
    """The split of those photos, by identity, that are also images of an earlier dataset.

    Images that a budget leaves out of the earlier dataset may have no split.

    Args:
        index: of the earlier dataset.
        split_of_id: its splits, by source id.
        photos: the identities to look for.
    """
    identities = read_identities(index, required=True)
    rows = pa.array(np.flatnonzero(identical_to(identities, photos)))
    source_ids = pq.read_table(index, columns=["source_id"])["source_id"].take(rows).to_pylist()
    photos_in_index = identities.take(rows).to_pylist()
    split_of_photo = {}
    for photo, source_id in zip(photos_in_index, source_ids, strict=True):
        if source_id in split_of_id:
            split_of_photo[photo] = split_of_id[source_id]
    return split_of_photo


def _class_of_each_source(dataset: PreparedDataset) -> dict[str, int]:
    """The class of each source image; the lowest, if it has images of several."""
    source_of_image, sources = dataset.sources
    lowest_label = np.full(len(sources), np.iinfo(np.int64).max)
    np.minimum.at(lowest_label, source_of_image, dataset.labels)
    return dict(zip(sources, lowest_label.tolist(), strict=True))


def _write(dataset: PreparedDataset, split_of_source: Mapping[str, str], table: Path) -> None:
    """Write the split and the number of images of each source id; see `split_dataset`."""
    counts = dataset.index.group_by("source_id").aggregate([("label", "count")])
    counts = counts.sort_by("source_id")
    source_ids = counts["source_id"].to_pylist()
    splits = []
    for source_id in source_ids:
        source = dataset.joined_sources.get(source_id, source_id)
        splits.append(split_of_source[source])
    columns = {
        "source_id": source_ids,
        "part": splits,
        "images": counts["label_count"].to_pylist(),
    }
    pq.write_table(pa.table(columns), table)
