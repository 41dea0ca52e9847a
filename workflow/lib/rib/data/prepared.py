"""Reading of prepared datasets."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.config.geometry import Geometry
from rib.config.label_space import LabelSpace
from rib.data.identity import PHOTO, joined_ids, read_identities
from rib.data.images import decode, resize_and_crop

DIGESTS = ["sha256", PHOTO]
# Columns of the index; others are slices, which a layout adds.
INDEX_COLUMNS = [
    "row",
    "image_id",
    "label",
    "source_id",
    "object_id",
    *DIGESTS,
    "offset",
    "length",
    "border",
]


class EncodedImages:
    """Photos that are decoded on access, with the interface of an array (n, size, size, 3) uint8.

    Args:
        data: (bytes,) uint8, memory-mapped: the encoded photos.
        index: offset, length, border and image_id of each photo.
        workers: decoding threads; PIL releases the GIL.
    """

    def __init__(
        self, data: np.ndarray, index: pa.Table, geometry: Geometry, workers: int, name: str
    ):
        self.data, self.geometry, self.name = data, geometry, name
        self.offsets, self.lengths, self.borders = (
            index[key].to_numpy() for key in ("offset", "length", "border")
        )
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
    images: (
        np.ndarray | EncodedImages
    )  # (n, size, size, 3) uint8, memory-mapped or decoded on access
    labels: np.ndarray  # (n,) int64, indices into the label space
    rows: np.ndarray | None  # (n,) rows of `images` that belong to the dataset; None for all
    index: pa.Table  # one row per image: row, image_id, label, source_id, object_id
    space: LabelSpace
    # Of identical photos, whose source or object is the same: the first of their ids by each other.
    joined_sources: Mapping[str, str] = field(default_factory=dict)
    joined_objects: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        geometry: Geometry | None = None,
        workers: int = 1,
        pixels: bool = True,
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
        # Each digest is a quarter of the memory that the index of a very large dataset takes.
        stored = pq.read_schema(folder / "index.parquet").names
        columns = [name for name in stored if name in INDEX_COLUMNS and name not in DIGESTS]
        index = pq.read_table(folder / "index.parquet", columns=columns)
        identities = read_identities(folder / "index.parquet")
        joined = {
            column: joined_ids(index[column], identities) if column in columns else {}
            for column in ("source_id", "object_id")
        }
        images = _stored_images(folder / "images.npy") if pixels else None
        if pixels and images.ndim == 1:
            images = EncodedImages(images, index, geometry, workers, name)
        labels = index["label"].to_numpy().astype(np.int64)
        return cls(
            name,
            images,
            labels,
            None,
            index,
            LabelSpace.from_json(read_json(folder / "classes.json")),
            joined_sources=joined["source_id"],
            joined_objects=joined["object_id"],
        )

    def take(self, rows: np.ndarray) -> "PreparedDataset":
        """The subset with the given rows (sorted int64)."""
        chosen = rows if self.rows is None else self.rows[rows]
        return replace(self, labels=self.labels[rows], rows=chosen, index=self.index.take(rows))

    @cached_property
    def declared_sources(self) -> tuple[np.ndarray, list[str]]:
        """Index of each image's source id (n,), and the unique source ids, as the layout gave them."""
        encoded = self.index["source_id"].combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()

    @cached_property
    def sources(self) -> tuple[np.ndarray, list[str]]:
        """Index of each image's source image (n,), and their unique ids; identical photos have one."""
        places, declared = self.declared_sources
        names = [self.joined_sources.get(name, name) for name in declared]
        unique = {name: place for place, name in enumerate(dict.fromkeys(names))}
        return np.array([unique[name] for name in names], places.dtype)[places], list(unique)

    @property
    def joined_index(self) -> pa.Table:
        """The index, in which identical photos have one source id and one object id."""
        index = self.index
        for column, joined in (
            ("source_id", self.joined_sources),
            ("object_id", self.joined_objects),
        ):
            if joined:
                names = [joined.get(name, name) for name in index[column].to_pylist()]
                place = index.column_names.index(column)
                index = index.set_column(place, column, pa.array(names, pa.string()))
        return index


def _stored_images(path: Path) -> np.ndarray:
    """Prepared images, (n, size, size, 3) uint8, or one array of bytes if they are kept encoded; read as they are used.

    Raises:
        UserError: the file is not one of NumPy's.
    """
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:  # not shown: NumPy's message recommends a way to load that runs code
        again = path.with_name("manifest.json")
        raise UserError(
            f"{path} is damaged; delete {again} and run again to recreate it."
        ) from None
