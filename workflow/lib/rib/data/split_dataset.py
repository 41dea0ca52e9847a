"""Splitting a dataset's source images into train, select and test."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rib.data.splits import parts_of, read_split
from rib.data.view import DatasetFiles, DatasetView, load_whole


def split_dataset(
    *, files: DatasetFiles, view: DatasetView, fractions: Mapping[str, float], earlier: Iterable[Path], table: Path
) -> None:
    """Split a dataset's source images and write the split of each.

    Args:
        files: the dataset, not yet split.
        fractions: fractions of source images in `train` and `select`, with a sum below 1; the rest is `test`.
        earlier: splits of earlier datasets that share sources with this one, in order.
        table: written as Parquet, one row per source image, sorted by id: source_id, part, images (in the dataset).
    """
    index = load_whole(files, view).index
    images = index.group_by("source_id").aggregate([("label", "min"), ("label", "count")]).sort_by("source_id")
    ids, labels, counts = (images[name].to_pylist() for name in ("source_id", "label_min", "label_count"))
    known = {source: which for path in earlier for source, which in read_split(path).items()}
    found = parts_of(dict(zip(ids, labels, strict=True)), fractions, known)
    pq.write_table(pa.table({"source_id": ids, "part": [found[name] for name in ids], "images": counts}), table)
