"""Reading of prepared datasets."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.config.geometry import Geometry
from rib.config.label_space import LabelSpace
from rib.data.images import decode, resize_and_crop

# Columns of the index; others are slices, which a layout adds.
INDEX_COLUMNS = ["row", "image_id", "label", "source_id", "object_id", "sha256", "offset", "length", "border"]


class EncodedImages:
    """Photos that are decoded on access, with the interface of an array (n, size, size, 3) uint8.

    Args:
        data: (bytes,) uint8, memory-mapped: the encoded photos.
        index: offset, length, border and image_id of each photo.
        workers: decoding threads; PIL releases the GIL.
    """

    def __init__(self, data: np.ndarray, index: pa.Table, geometry: Geometry, workers: int, name: str):
        self.data, self.geometry, self.name = data, geometry, name
        self.offsets, self.lengths, self.borders = (index[key].to_numpy() for key in ("offset", "length", "border"))
        self.ids = index["image_id"]
        self._pool = ThreadPoolExecutor(workers)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The photos in the given rows, (N, size, size, 3) uint8; raise a CorruptImageError if one can't be decoded."""
        return np.stack(list(self._pool.map(self._one, np.arange(len(self))[rows])))

    def _one(self, row: int) -> np.ndarray:
        start = self.offsets[row]
        data = self.data[start : start + self.lengths[row]].tobytes()
        image = decode(data, f"{self.name}, {self.ids[int(row)]}", int(self.borders[row]))
        return resize_and_crop(image, self.geometry)


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset at one geometry."""

    name: str
    images: np.ndarray | EncodedImages  # (n, size, size, 3) uint8, memory-mapped or decoded on access
    labels: np.ndarray  # (n,) int64, indices into the label space
    rows: np.ndarray | None  # (n,) rows of `images` that belong to the dataset; None for all
    index: pa.Table  # one row per image: row, image_id, label, source_id, object_id
    space: LabelSpace

    @classmethod
    def open(
        cls, folder: Path, name: str, geometry: Geometry | None = None, workers: int = 1, pixels: bool = True
    ) -> "PreparedDataset":
        """Open the output folder of a prepare job; pixels are read on access.

        Args:
            geometry: target geometry of encoded photos.
            workers: threads that decode them.
            pixels: whether `images` are opened; without them, the dataset has None.

        Raises:
            UserError: a file is missing.
        """
        for part in ("index.parquet", *(["images.npy"] if pixels else []), "classes.json"):
            if not (folder / part).is_file():
                raise UserError(
                    f"{folder / part} is missing; delete {folder / 'manifest.json'} and run again to recreate it."
                )
        # The hashes are a quarter of the memory that the index of a very large dataset takes.
        stored = pq.read_schema(folder / "index.parquet").names
        columns = [name for name in stored if name in INDEX_COLUMNS and name != "sha256"]
        index = pq.read_table(folder / "index.parquet", columns=columns)
        images = np.load(folder / "images.npy", mmap_mode="r") if pixels else None
        if pixels and images.ndim == 1:
            images = EncodedImages(images, index, geometry, workers, name)
        labels = index["label"].to_numpy().astype(np.int64)
        return cls(name, images, labels, None, index, LabelSpace.from_json(read_json(folder / "classes.json")))

    def take(self, rows: np.ndarray) -> "PreparedDataset":
        """The subset with the given rows (sorted int64)."""
        chosen = rows if self.rows is None else self.rows[rows]
        return replace(self, labels=self.labels[rows], rows=chosen, index=self.index.take(rows))

    @cached_property
    def sources(self) -> tuple[np.ndarray, list[str]]:
        """Index of each image's source (n,), and the list of unique source ids."""
        encoded = self.index["source_id"].combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
