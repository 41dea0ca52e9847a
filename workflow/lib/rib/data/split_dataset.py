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
from rib.data.splits import LEFT_OUT, parts_of, read_split
from rib.data.view import DatasetFiles, DatasetView, load_whole


@dataclass(frozen=True)
class EarlierSplit:
    """A dataset that was split before, whose source images keep their part in later datasets."""

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
    """Split a dataset's source images and write the part of each.

    Identical photos are one source image, also if they are of several datasets. A source image that
    links images which earlier datasets have in different parts is left out, since training or
    testing on it would leak.

    Args:
        files: the dataset, not yet split.
        fractions: fractions of source images in `train` and `select`, with a sum below 1; the rest is `test`.
        earlier: in order; the first one that has a source image decides its part.
        table: written as Parquet, one row per source id, sorted by id: source_id, part, images (in
            the dataset).

    Raises:
        UserError: an index does not say which photos are identical, or see `load_whole`.
    """
    dataset = load_whole(files, view)
    identities = read_identities(files.folder / "index.parquet", required=True)
    if dataset.rows is not None:
        identities = identities.take(pa.array(dataset.rows))
    parts = _parts_given(dataset, identities, earlier)
    known = {source: given[0] for source, given in parts.items() if len(set(given)) == 1}
    conflicting = parts.keys() - known.keys()
    if conflicting:
        said = "%s: left out %d source images that link images which are in different parts of earlier datasets"
        log.warning(said, dataset.name, len(conflicting))
    labels = _class_of_each_source(dataset)
    free_or_known = {source: label for source, label in labels.items() if source not in conflicting}
    found = parts_of(free_or_known, fractions, known) if free_or_known else {}
    found |= dict.fromkeys(conflicting, LEFT_OUT)
    _write(dataset, found, table)


def _parts_given(
    dataset: PreparedDataset, identities: pa.Array, earlier: Iterable[EarlierSplit]
) -> dict[str, list[str]]:
    """The parts that earlier datasets gave to images of each source image, in their order."""
    places, sources = dataset.sources
    _, declared = dataset.declared_sources
    given: dict[str, list[str]] = {}
    for split in earlier:
        parts = read_split(split.table).items()
        part_of_id = {name: part for name, part in parts if part != LEFT_OUT}
        for name in declared if split.same_sources else []:
            if name in part_of_id:
                source = dataset.joined_sources.get(name, name)
                given.setdefault(source, []).append(part_of_id[name])
        part_of_photo = _part_of_each_photo(split.index, part_of_id, identities)
        rows = np.flatnonzero(identical_to(identities, pa.array(list(part_of_photo), pa.string())))
        for row in rows:
            part = part_of_photo[identities[row].as_py()]
            given.setdefault(sources[places[row]], []).append(part)
        if len(rows):
            said = "%s: %d images are identical to images of %s, which decides their part"
            log.info(said, dataset.name, len(rows), split.index.parts[-3])
    return given


def _part_of_each_photo(
    index: Path, part_of_id: Mapping[str, str], photos: pa.Array
) -> dict[str, str]:
    """The part of those photos, by identity, that are also images of an earlier dataset.

    Images that a budget leaves out of the earlier dataset may have no part.
    """
    theirs = read_identities(index, required=True)
    rows = pa.array(np.flatnonzero(identical_to(theirs, photos)))
    ids = pq.read_table(index, columns=["source_id"])["source_id"].take(rows).to_pylist()
    pairs = zip(theirs.take(rows).to_pylist(), ids, strict=True)
    return {photo: part_of_id[name] for photo, name in pairs if name in part_of_id}


def _class_of_each_source(dataset: PreparedDataset) -> dict[str, int]:
    """The class of each source image; the lowest, if it has images of several."""
    places, sources = dataset.sources
    lowest = np.full(len(sources), np.iinfo(np.int64).max)
    np.minimum.at(lowest, places, dataset.labels)
    return dict(zip(sources, lowest.tolist(), strict=True))


def _write(dataset: PreparedDataset, part_of_source: Mapping[str, str], table: Path) -> None:
    images = (
        dataset.index.group_by("source_id").aggregate([("label", "count")]).sort_by("source_id")
    )
    ids, counts = images["source_id"].to_pylist(), images["label_count"].to_pylist()
    sources = [dataset.joined_sources.get(name, name) for name in ids]
    parts = [part_of_source[source] for source in sources]
    pq.write_table(pa.table({"source_id": ids, "part": parts, "images": counts}), table)
