"""Reading what preparation wrote."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.classes import ClassSpace
from rib.io import read_json


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset at one geometry.

    Attributes:
        name: the dataset.
        images: (n, size, size, 3) uint8, memory-mapped.
        labels: (n,) int64, indices into the class space.
        rows: (n,) of `images`, those that belong to it; None for all.
        index: one row per image: row, image_id, label, source_id, object_id, sha256.
        space: the class space.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray | None
    index: pa.Table
    space: ClassSpace

    @classmethod
    def open(cls, folder: Path, name: str) -> "PreparedDataset":
        """Open the folder that a prepare job wrote; pixels are read when they are used."""
        index = pq.read_table(folder / "index.parquet")
        return cls(
            name=name,
            images=np.load(folder / "images.npy", mmap_mode="r"),
            labels=index["label"].to_numpy().astype(np.int64),
            rows=None,
            index=index,
            space=ClassSpace.from_json(read_json(folder / "classes.json")),
        )

    def take(self, rows: np.ndarray) -> "PreparedDataset":
        """A part of the dataset: the images at the given places (sorted int64)."""
        return replace(
            self,
            labels=self.labels[rows],
            rows=rows if self.rows is None else self.rows[rows],
            index=self.index.take(rows),
        )

    @property
    def source_ids(self) -> list[str]:
        """Source image of each image."""
        return self.index["source_id"].to_pylist()
