"""Read prepared datasets."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.base.processors import processors
from rib.catalog.label_space import LabelSpace
from rib.data.identity import PHOTO, joined_ids, read_identities
from rib.data.images import decode, resize_and_crop
from rib.data.stored_array import ArrayReader
from rib.schema.geometry import Geometry

DIGESTS = ["sha256", PHOTO]
# Columns of every index; a layout adds others, the slices.
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
    "attribution",
]


class EncodedImages:
    """Images that are decoded on access, like an array (n, size, size, 3) uint8.

    Args:
        encoded: (bytes,) uint8, mapped from a file.
        index: offset, length, border and image_id of each image.
        geometry: of the decoded images; None if no image is accessed.
        decode_workers: decoding threads; PIL releases the GIL.
        name: of the dataset, for messages.
    """

    def __init__(
        self,
        encoded: np.memmap,
        index: pa.Table,
        geometry: Geometry | None,
        decode_workers: int,
        name: str,
    ):
        self.geometry = geometry
        self.name = name
        self._reader = ArrayReader(encoded)
        self._offsets = index["offset"].to_numpy()
        self._lengths = index["length"].to_numpy()
        self._borders = index["border"].to_numpy()
        self._image_ids = index["image_id"]
        self._pool = ThreadPoolExecutor(min(decode_workers, processors()))

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of images, height, width and channels: (n, size, size, 3)."""
        assert self.geometry is not None  # a geometry is given if images are accessed
        return len(self), self.geometry.size, self.geometry.size, 3

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The images in the given rows, (N, size, size, 3) uint8.

        Raises:
            CorruptImageError: an image can't be decoded.
        """
        row_numbers = np.arange(len(self))[rows]
        images = np.empty((len(row_numbers), *self.shape[1:]), np.uint8)
        self.read(row_numbers, images)
        return images

    def read(self, rows: np.ndarray, target: np.ndarray) -> None:
        """Decode images into memory.

        Args:
            rows: (N,) of the images.
            target: (N, size, size, 3) uint8; it is filled in the order of the rows.

        Raises:
            CorruptImageError: an image can't be decoded.
        """
        for _ in self._pool.map(self._decode, rows.tolist(), target):
            pass  # an error of an image is raised here

    def _decode(self, row: int, pixels: np.ndarray) -> None:
        """Decode the image in one row into `pixels`, (size, size, 3) uint8."""
        encoded = self._reader.bytes(int(self._offsets[row]), int(self._lengths[row])).tobytes()
        image_id = self._image_ids[row]
        assert self.geometry is not None  # a geometry is given if images are accessed
        image = decode(encoded, f"{self.name}, {image_id}", int(self._borders[row]))
        pixels[:] = resize_and_crop(image, self.geometry)


@dataclass(frozen=True)
class PreparedDataset:
    """Images of a dataset at one geometry (size and crop), with their labels and ids."""

    name: str
    # (n, size, size, 3) uint8, memory-mapped or decoded on access; None if pixels aren't opened.
    images: np.ndarray | EncodedImages | None
    labels: np.ndarray  # (n,) int64, indices into the label space
    rows: np.ndarray | None  # (n,) rows of `images` in the dataset; None for all
    index: pa.Table  # one row per image: row, image_id, label, source_id, object_id
    space: LabelSpace
    # Index file of the whole dataset, with identities; None if no images are identical.
    index_file: Path | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        geometry: Geometry | None = None,
        decode_workers: int = 1,
        pixels: bool = True,
    ) -> "PreparedDataset":
        """Open the output folder of a prepare job; pixels are read on access.

        Args:
            geometry: target geometry of encoded images.
            decode_workers: threads that decode them.
            pixels: whether to open pixels; without, `images` is None.

        Raises:
            UserError: a file is missing.
        """
        index_file = folder / "index.parquet"
        images_file = folder / "images.npy"
        classes_file = folder / "classes.json"
        _refuse_missing(index_file)
        if pixels:
            _refuse_missing(images_file)
        _refuse_missing(classes_file)
        index = _read_index(index_file)
        images: np.ndarray | EncodedImages | None = None
        if pixels:
            stored_images = _stored_images(images_file)
            images = stored_images
            if stored_images.ndim == 1:
                images = EncodedImages(stored_images, index, geometry, decode_workers, name)
        return cls(
            name=name,
            images=images,
            labels=index["label"].to_numpy().astype(np.int64),
            rows=None,
            index=index,
            space=LabelSpace.from_json(read_json(classes_file)),
            index_file=index_file,
        )

    def take(self, rows: np.ndarray) -> "PreparedDataset":
        """The subset with the given rows (sorted int64) of this dataset."""
        # Images are not copied, so `rows` counts in the whole dataset.
        rows_of_images = rows if self.rows is None else self.rows[rows]
        return replace(
            self, labels=self.labels[rows], rows=rows_of_images, index=self.index.take(rows)
        )

    @property
    def joined_sources(self) -> Mapping[str, str]:
        """`{"b": "a", "c": "a"}` if images of sources a, b and c are identical: they count as a."""
        return _joined_ids_of(self.index_file, "source_id")

    @property
    def joined_objects(self) -> Mapping[str, str]:
        """`{"b": "a", "c": "a"}` if images of objects a, b and c are identical, for bootstraps."""
        return _joined_ids_of(self.index_file, "object_id")

    @cached_property
    def declared_sources(self) -> tuple[np.ndarray, list[str]]:
        """Source ids as the layout gave them: (n,) position of each image's id, and the unique ids.

        Source ids a, b, a give `([0, 1, 0], ["a", "b"])`.
        """
        encoded = self.index["source_id"].combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()

    @cached_property
    def sources(self) -> tuple[np.ndarray, list[str]]:
        """Source images: (n,) position of each image's source, and the unique source ids.

        As `declared_sources`, but identical images have one source, whatever their ids: a, b, c
        give `([0, 0, 1], ["a", "c"])` if a and b are identical.
        """
        declared_of_image, declared_ids = self.declared_sources
        joined_sources = self.joined_sources
        if not joined_sources:
            return declared_of_image, declared_ids
        position_of_source: dict[str, int] = {}
        source_of_declared = np.empty(len(declared_ids), declared_of_image.dtype)
        for i, declared_id in enumerate(declared_ids):
            source = joined_sources.get(declared_id, declared_id)
            if source not in position_of_source:
                position_of_source[source] = len(position_of_source)
            source_of_declared[i] = position_of_source[source]
        return source_of_declared[declared_of_image], list(position_of_source)

    def attribution(self, image: int) -> str | None:
        """Author, page and licence that must stand beside an image; None if nothing must.

        Args:
            image: its place in the dataset, from 0.
        """
        if "attribution" not in self.index.column_names:
            return None
        attribution: str = self.index["attribution"][image].as_py()
        return attribution

    @property
    def joined_index(self) -> pa.Table:
        """The index, but identical images have one source id and one object id.

        Bootstraps draw objects, so identical images are then drawn together.
        """
        index = _replace_ids(self.index, "source_id", self.joined_sources)
        return _replace_ids(index, "object_id", self.joined_objects)


def _refuse_missing(path: Path) -> None:
    """A UserError if an output of the prepare job does not exist."""
    if not path.is_file():
        manifest = path.with_name("manifest.json")
        raise UserError(f"{path} is missing; delete {manifest} and run again to recreate it.")


def _read_index(path: Path) -> pa.Table:
    """The index without slices and digests: row, image_id, label, source_id, object_id, ..."""
    columns = []
    for column in pq.read_schema(path).names:
        # Slices are not needed here, and each digest would be a quarter of a large index's memory.
        if column in INDEX_COLUMNS and column not in DIGESTS:
            columns.append(column)
    return pq.read_table(path, columns=columns)


def read_slices(path: Path) -> np.ndarray:
    """Number of each image's slice, from 0: (n,) int64. Budgets take slices equally often.

    A slice is a combination of levels, such as corruption fog at severity 3, in the columns that
    the layout added to the index. Slices are numbered in the order of their levels: fog 3, fog 5,
    snow 3, fog 3 give 0, 1, 2, 0. Without such columns all images have slice 0.

    Args:
        path: the index of a prepared dataset.
    """
    file = pq.ParquetFile(path)
    slices = np.zeros(file.metadata.num_rows, np.int64)
    for name in file.schema_arrow.names:
        if name in INDEX_COLUMNS:
            continue
        column = file.read(columns=[name])[name].combine_chunks().dictionary_encode()
        sorted_values = pc.sort_indices(column.dictionary).to_numpy()
        rank_of_value = np.argsort(sorted_values)
        ranks = rank_of_value[column.indices.to_numpy()]
        combinations = slices * len(sorted_values) + ranks
        # Combinations that don't occur get no number.
        _, slices = np.unique(combinations, return_inverse=True)
    return slices


@cache  # few jobs need them, and a large dataset takes seconds
def _joined_ids_of(index_file: Path | None, column: str) -> dict[str, str]:
    """{"b": "a"}: images with ids a and b have the same pixels, so splits and draws take b as a.

    Among ids linked by such images, the first in text order stands for all. {} without an index
    file, or if it lacks the column, such as `source_id`.
    """
    if index_file is None or column not in pq.read_schema(index_file).names:
        return {}
    ids = pq.read_table(index_file, columns=[column])[column]
    return joined_ids(ids, read_identities(index_file))


def _replace_ids(index: pa.Table, column: str, replacements: Mapping[str, str]) -> pa.Table:
    """The index with `replacements`, such as {"b": "a"}, in a column of ids; other ids stay."""
    if not replacements:
        return index
    ids = [replacements.get(old_id, old_id) for old_id in index[column].to_pylist()]
    position = index.column_names.index(column)
    return index.set_column(position, column, pa.array(ids, pa.string()))


def _stored_images(path: Path) -> np.memmap:
    """(n, size, size, 3) uint8, or (bytes,) uint8 of encoded images; memory-mapped."""
    try:
        images: np.memmap = np.load(path, mmap_mode="r")
    except ValueError:  # not shown: NumPy's message recommends loading in a way that runs code
        manifest = path.with_name("manifest.json")
        raise UserError(
            f"{path} is damaged; delete {manifest} and run again to recreate it."
        ) from None
    return images
