"""Reading of prepared datasets."""

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
from rib.config.geometry import Geometry
from rib.config.label_space import LabelSpace
from rib.data.identity import PHOTO, joined_ids, read_identities
from rib.data.images import decode, resize_and_crop
from rib.data.stored_array import ArrayReader

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
        encoded: (bytes,) uint8, mapped from a file: the encoded photos.
        index: offset, length, border and image_id of each photo.
        geometry: of the images; None if none is accessed.
        decode_workers: decoding threads; PIL releases the GIL.
        name: name of the dataset, for messages.
    """

    def __init__(
        self,
        encoded: np.memmap,
        index: pa.Table,
        geometry: Geometry | None,
        decode_workers: int,
        name: str,
    ):
        """Note where the encoded photos are; none is decoded yet."""
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
        """Number of photos, height, width and channels: (n, size, size, 3)."""
        assert self.geometry is not None  # of images that are accessed
        return len(self), self.geometry.size, self.geometry.size, 3

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The photos in the given rows, (N, size, size, 3) uint8.

        Raises:
            CorruptImageError: one can't be decoded.
        """
        row_numbers = np.arange(len(self))[rows]
        photos = np.empty((len(row_numbers), *self.shape[1:]), np.uint8)
        self.read(row_numbers, photos)
        return photos

    def read(self, rows: np.ndarray, target: np.ndarray) -> None:
        """Decode photos into memory.

        Args:
            rows: (N,) of the photos.
            target: (N, size, size, 3) uint8; it is filled in the order of the rows.

        Raises:
            CorruptImageError: one can't be decoded.
        """
        for _ in self._pool.map(self._decode, rows.tolist(), target):
            pass  # an error of a photo is raised here

    def _decode(self, row: int, target: np.ndarray) -> None:
        """Decode the photo in one row into (size, size, 3) uint8."""
        encoded = self._reader.bytes(int(self._offsets[row]), int(self._lengths[row])).tobytes()
        image_id = self._image_ids[row]
        assert self.geometry is not None  # of images that are accessed
        image = decode(encoded, f"{self.name}, {image_id}", int(self._borders[row]))
        target[:] = resize_and_crop(image, self.geometry)


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset at one geometry."""

    name: str
    # (n, size, size, 3) uint8, memory-mapped or decoded on access; None if pixels aren't opened
    images: np.ndarray | EncodedImages | None
    labels: np.ndarray  # (n,) int64, indices into the label space
    rows: np.ndarray | None  # (n,) rows of `images` that belong to the dataset; None for all
    index: pa.Table  # one row per image: row, image_id, label, source_id, object_id
    space: LabelSpace
    # of all images of the dataset, with digests of photos; None if no photos are identical
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
            geometry: target geometry of encoded photos.
            decode_workers: threads that decode them.
            pixels: whether `images` are opened; without them, the dataset has None.

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
        """The subset with the given rows (sorted int64), counted in this dataset."""
        # The images are not copied, so rows of a subset are counted in the whole dataset, too.
        rows_of_images = rows if self.rows is None else self.rows[rows]
        return replace(
            self, labels=self.labels[rows], rows=rows_of_images, index=self.index.take(rows)
        )

    @property
    def joined_sources(self) -> Mapping[str, str]:
        """Of identical photos, whose source is the same, the first of their ids by each other."""
        return _joined_ids_of(self.index_file, "source_id")

    @property
    def joined_objects(self) -> Mapping[str, str]:
        """Of identical photos, whose object is the same, the first of their ids by each other."""
        return _joined_ids_of(self.index_file, "object_id")

    @cached_property
    def declared_sources(self) -> tuple[np.ndarray, list[str]]:
        """Source ids as the layout gave them: (n,) integers, one for each image, and the ids.

        The integer of an image is the position of its source id among the unique ids.
        """
        encoded = self.index["source_id"].combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()

    @cached_property
    def sources(self) -> tuple[np.ndarray, list[str]]:
        """Source images: (n,) integers, one for each image, and the unique ids of the sources.

        The integer of an image is the position of its source among the ids. They are those that the
        layout gave, but identical photos have one source, whatever their ids.
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

    @property
    def joined_index(self) -> pa.Table:
        """The index, in which identical photos have one source id and one object id."""
        index = _replace_ids(self.index, "source_id", self.joined_sources)
        return _replace_ids(index, "object_id", self.joined_objects)


def _refuse_missing(path: Path) -> None:
    """Refuse a prepared dataset without one of its files."""
    if not path.is_file():
        manifest = path.with_name("manifest.json")
        raise UserError(f"{path} is missing; delete {manifest} and run again to recreate it.")


def _read_index(path: Path) -> pa.Table:
    """The index without slices and digests.

    Each digest is a quarter of the memory that the index of a very large dataset takes.
    """
    columns = []
    for column in pq.read_schema(path).names:
        if column in INDEX_COLUMNS and column not in DIGESTS:
            columns.append(column)
    return pq.read_table(path, columns=columns)


def read_slices(path: Path) -> np.ndarray:
    """Number of each image's slice, from 0: (n,) int64.

    A slice is a combination of values of the columns that the layout added to the index, such as a
    corruption and a severity. Slices are numbered in the order of these; without columns all images
    are of slice 0.

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


@cache  # few jobs need them, and they take seconds of a large dataset
def _joined_ids_of(index_file: Path | None, column: str) -> dict[str, str]:
    """Ids in a column that belong to identical photos, see `joined_ids`.

    Args:
        index_file: one row per image; without it there are none.
        column: `source_id` or `object_id`; without this column there are none.

    Returns:
        The first of the ids that belong together, by each other one of them.
    """
    if index_file is None or column not in pq.read_schema(index_file).names:
        return {}
    ids = pq.read_table(index_file, columns=[column])[column]
    return joined_ids(ids, read_identities(index_file))


def _replace_ids(index: pa.Table, column: str, replacements: Mapping[str, str]) -> pa.Table:
    """The index with some ids of a column replaced.

    Args:
        replacements: new id by old id; ids without one stay.
    """
    if not replacements:
        return index
    ids = [replacements.get(old_id, old_id) for old_id in index[column].to_pylist()]
    position = index.column_names.index(column)
    return index.set_column(position, column, pa.array(ids, pa.string()))


def _stored_images(path: Path) -> np.memmap:
    """Prepared images, (n, size, size, 3) uint8, or one array of bytes if they are kept encoded.

    They are read as they are used.

    Raises:
        UserError: the file is not one of NumPy's.
    """
    try:
        images: np.memmap = np.load(path, mmap_mode="r")
    except ValueError:  # not shown: NumPy's message recommends a way to load that runs code
        manifest = path.with_name("manifest.json")
        raise UserError(
            f"{path} is damaged; delete {manifest} and run again to recreate it."
        ) from None
    return images
