"""Reading what preparation wrote."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.classes import ClassSpace
from rib.data.images import to_geometry
from rib.geometry import Geometry
from rib.io import UserError, read_json


class EncodedImages:
    """Photos that are decoded when they are used, under the interface of an array (n, size, size, 3) uint8.

    Args:
        data: (bytes,) uint8, memory-mapped: the encoded photos.
        index: offset, length, border and image_id of each.
        geometry: to bring them to.
        workers: threads that decode; PIL lets them run at once.
        name: the dataset, for messages.
    """

    def __init__(self, data: np.ndarray, index: pa.Table, geometry: Geometry, workers: int, name: str):
        self.data, self.geometry, self.name = data, geometry, name
        self.offsets, self.lengths, self.borders = (index[key].to_numpy() for key in ("offset", "length", "border"))
        self.ids = index["image_id"]
        self._pool = ThreadPoolExecutor(workers)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The photos at the given places: (N, size, size, 3) uint8.

        Raises:
            CorruptImageError: one can't be decoded.
        """
        rows = np.arange(len(self))[rows]
        if not len(rows):
            return np.empty((0, self.geometry.size, self.geometry.size, 3), np.uint8)
        return np.stack(list(self._pool.map(self._one, rows)))

    def _one(self, row: int) -> np.ndarray:
        start = self.offsets[row]
        data = self.data[start : start + self.lengths[row]].tobytes()
        return to_geometry(data, f"{self.name}, {self.ids[int(row)]}", int(self.borders[row]), self.geometry)


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset at one geometry.

    Attributes:
        name: the dataset.
        images: (n, size, size, 3) uint8, memory-mapped or decoded when used.
        labels: (n,) int64, indices into the class space.
        rows: (n,) of `images`, those that belong to it; None for all.
        index: one row per image: row, image_id, label, source_id, object_id.
        space: the class space.
    """

    name: str
    images: np.ndarray | EncodedImages
    labels: np.ndarray
    rows: np.ndarray | None
    index: pa.Table
    space: ClassSpace

    @classmethod
    def open(cls, folder: Path, name: str, geometry: Geometry | None = None, workers: int = 1) -> "PreparedDataset":
        """Open the folder that a prepare job wrote; pixels are read when they are used.

        Args:
            folder: the job's.
            name: the dataset.
            geometry: for photos that are kept encoded.
            workers: threads that decode those.

        Raises:
            UserError: a part of what was prepared is lost.
        """
        for part in ("index.parquet", "images.npy", "classes.json"):
            if not (folder / part).is_file():
                raise UserError(
                    f"{folder / part} is lost; delete {folder / 'manifest.json'} and run again to make it anew."
                )
        # Without the hashes, a quarter of what a very large set's index takes in memory.
        columns = [name for name in pq.read_schema(folder / "index.parquet").names if name != "sha256"]
        index = pq.read_table(folder / "index.parquet", columns=columns)
        images = np.load(folder / "images.npy", mmap_mode="r")
        if images.ndim == 1:
            images = EncodedImages(images, index, geometry, workers, name)
        return cls(
            name=name,
            images=images,
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

    @cached_property
    def sources(self) -> tuple[np.ndarray, list[str]]:
        """Source image of each image as a place (n,) in a list, which names each once."""
        encoded = self.index["source_id"].combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
