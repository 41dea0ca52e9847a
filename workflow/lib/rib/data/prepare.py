"""Prepare a dataset: verified images in a memory-mapped file, and an index.

An entry's `storage` selects one of two forms. `array`: images are decoded and resized once per
geometry, so reading is fast. `encoded`: published bytes are concatenated, and decoded on use at any
geometry; for datasets too large to store decoded.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk, verify_digest, write_json
from rib.base.plugins import checked_settings, load_function
from rib.base.processors import processors
from rib.base.progress import Progress, log
from rib.data.archives import TooLargeError
from rib.data.data_settings import PreparationSettings
from rib.data.dataset import INDEX_COLUMNS
from rib.data.identity import (
    PHOTO,
    identical_images,
    identity_of,
    of_other_classes,
    read_identities,
)
from rib.data.images import CorruptImageError, DatasetSource, Item, Photo, decode, resize_and_crop
from rib.schema.geometry import Geometry

ROW_GROUP = 1 << 12  # index rows in memory
SAVED_EVERY = 512  # images between saves from which a killed job resumes
FEWEST_CLASSES = 2  # of a dataset
AHEAD = 4  # images per thread that are read before the earlier ones are written
COLUMNS = {
    "row": pa.int32(),
    "image_id": pa.string(),
    "label": pa.int16(),
    "source_id": pa.string(),
    "object_id": pa.string(),
    "sha256": pa.string(),
    PHOTO: pa.string(),
}
ATTRIBUTION = {"attribution": pa.string()}
ENCODED_COLUMNS = {"offset": pa.int64(), "length": pa.int64(), "border": pa.int64()}
SLICE_TYPES = {str: pa.dictionary(pa.int32(), pa.string()), int: pa.int64()}


def prepare(
    *,
    name: str,
    archives: Sequence[Path],
    settings: PreparationSettings,
    corrupt_allowed: int,
    decode_workers: int,
    images: Path,
    index: Path,
    classes: Path,
    manifest: Path,
    folders: Sequence[str] = (),
) -> None:
    """Write a prepared dataset; memory use is bounded, and a killed job resumes where it stopped.

    Args:
        name: of the dataset.
        archives: in the order of the dataset's entry; digests are checked again.
        corrupt_allowed: largest number of images left out because they can't be decoded.
        decode_workers: decoding threads; their number doesn't change the output.
        images: output, .npy: (n, size, size, 3) uint8, or (bytes,) uint8 for encoded images.
        index: output, Parquet: row, image_id, label, source_id, object_id, sha256 (of the stored
            bytes), photo_sha256 (of the decoded image, see `identity_of`); offset, length and
            border for encoded images; attribution, if images have one; and the layout's slices.
        classes: output, JSON: the label space; labels in the index are positions in it.
        manifest: output, JSON: n, number of classes with images, digest of the label space, ids of
            corrupt images, and numbers of images that are identical to another image and to an
            image of another class.
        folders: the user's folders that archives were packed from, such as `own/images/photos`, for
            messages about corrupt images.

    Raises:
        UserError: a setting does not fit the layout; an archive is not the pinned file, has no
            image of the classes (with `classes_per_dataset`: of fewer than two), an unexpected
            number of images or too many corrupt ones; two images have the same id or different
            slices; or the disk is too full.
    """
    items_of_layout = load_function(settings.layout, "items")
    settings_of_layout = checked_settings(
        items_of_layout, settings.settings, settings.layout, f"datasets.yaml, {name}"
    )
    for archive, digest in zip(archives, settings.digests, strict=True):
        if digest is not None:
            verify_digest(archive, digest, name)
    dataset = DatasetSource(
        name=name,
        archives=archives,
        space=settings.space,
        geometry=settings.geometry,
        source_group=settings.source_group,
        icons=settings.icons,
        exclude=settings.exclude,
        photos_layout=settings.photos_layout,
        file_digests=settings.file_digests,
    )
    geometry = None if settings.storage == "encoded" else settings.geometry
    number_of_images = settings.expected or settings.about
    if number_of_images:
        _refuse_full_disk(images, number_of_images, dataset, geometry)
    items = items_of_layout(dataset, **settings_of_layout)
    if settings.only is not None:
        items = _only(items, settings.only, dataset)
    with PreparedImagesWriter(images, geometry) as writer:
        _write_images(
            writer, items, dataset, settings.expected, corrupt_allowed, decode_workers, folders
        )
        if settings.classes_per_dataset:
            labels = _labels_with_images(writer, dataset)
            space = dataset.space.restricted(labels)
        else:
            labels = list(range(len(dataset.space.keys)))
            space = dataset.space
        writer.finish(index, labels, dataset)
    write_json(classes, space.to_json())
    facts = {
        "n": writer.count,
        "classes": len(writer.labels),
        "label_space": space.digest,
        "corrupt": writer.corrupt,
        **_count_identical_images(index, dataset),
    }
    write_json(manifest, facts)


def _labels_with_images(writer: "PreparedImagesWriter", dataset: DatasetSource) -> list[int]:
    """Sorted labels of images, such as [3, 5]; a UserError if there is only one."""
    labels = sorted(writer.labels)
    if len(labels) < FEWEST_CLASSES:
        raise UserError(
            f"{dataset}: '{dataset.space.keys[labels[0]]}' is its only class with images; add "
            "images of another."
        )
    return labels


def _only(
    items: Iterable[Item], image_ids: Collection[str], dataset: DatasetSource
) -> Iterator[Item]:
    """Yields the items that the entry's `only_file` names; then a UserError if one is missing."""
    missing = set(image_ids)
    for item in items:
        if item.image_id in missing:
            missing.remove(item.image_id)
            yield item
    if missing:
        raise UserError(
            f"{dataset}: its layout finds no image '{min(missing)}' ({len(missing)} of "
            f"{len(image_ids)} in the entry's only_file are missing); correct the file or settings."
        )


def _refuse_full_disk(
    images: Path, number_of_images: int, dataset: DatasetSource, geometry: Geometry | None
) -> None:
    """A UserError if the images won't fit; images that a killed job has written are not counted."""
    if geometry is None:
        # Encoded images have no geometry, and take about as much space as the archives.
        size = sum(archive.stat().st_size for archive in dataset.archives)
    else:
        size = number_of_images * geometry.size**2 * 3
    if images.exists():
        size -= images.stat().st_size
    refuse_full_disk(images.parent, max(0, size), f"preparing {dataset}")


def _count_identical_images(index: Path, dataset: DatasetSource) -> dict[str, int]:
    """For the manifest: `{"identical": 4, "identical_of_other_classes": 2}`; both are logged."""
    identities = read_identities(index)
    labels = pq.read_table(index, columns=["label"])["label"].to_numpy().astype(np.int64)
    identical = int(identical_images(identities).sum())
    identical_of_other_classes = int(of_other_classes(identities, labels).sum())
    if identical:
        log.info(
            "%s: %d of %d images are identical to another, which counts as one source image",
            dataset,
            identical,
            len(labels),
        )
    if identical_of_other_classes:
        log.warning(
            "%s: %d images are identical to one of another class: one of the labels is arbitrary",
            dataset,
            identical_of_other_classes,
        )
    return {
        "identical": identical,
        "identical_of_other_classes": identical_of_other_classes,
    }


@dataclass(frozen=True)
class Converted:
    """An image in its stored form."""

    data: bytes  # pixels at the geometry, or an encoded image
    identity: str  # SHA-256 of the decoded image (`identity_of`)


class PreparedImagesWriter:
    """Writes a .npy file and its index rows; saves every 512 images, so a killed job can resume.

    Until the file is complete, rows are in a journal beside it. Each line is one save as JSON:
    `{"rows": [...], "corrupt": ["a.png"], "count": 512, "end": 77070336}`, with index rows since
    the last save, and with all corrupt ids, images and bytes so far.

    Args:
        path: the .npy file.
        geometry: None for encoded images.
    """

    def __init__(self, path: Path, geometry: Geometry | None):
        self.path = path
        self.geometry = geometry
        self.journal = path.with_suffix(".journal")
        self.corrupt: list[str] = []  # ids of images left out
        self.labels: set[int] = set()  # labels of the images so far
        self.count = 0  # images so far
        self.end = 0  # bytes of the images so far
        self._unsaved_rows: list[dict[str, Any]] = []
        self._first_slices: dict[str, str | int] | None = None  # slices of the first image
        self._has_attributions = False

    def __enter__(self) -> "PreparedImagesWriter":
        """Open the files where the last save left them; bytes after it are cut off."""
        self._journal_file = open(self.journal, "a+b")
        bytes_of_saves = self._read_journal()
        self._journal_file.truncate(bytes_of_saves)
        has_save = bytes_of_saves > 0
        self._file = open(self.path, "r+b" if has_save else "wb")
        self._write_header(0)  # `finish` writes the true length
        end_of_header = self._file.tell()
        self._file.truncate(end_of_header + self.end)
        self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._journal_file.close()

    def _read_journal(self) -> int:
        """Restore the last save; return the bytes of all saves."""
        bytes_of_saves = 0
        self._journal_file.seek(0)
        for line in self._journal_file:
            # A killed job may leave an incomplete line, which is no save.
            if not line.endswith(b"\n"):
                break
            bytes_of_saves += len(line)
            save = json.loads(line)
            self.corrupt = save["corrupt"]
            self.count = save["count"]
            self.end = save["end"]
            for row in save["rows"]:
                self.labels.add(row["label"])
                self._has_attributions |= "attribution" in row
                if self._first_slices is None:
                    self._first_slices = _slices_of(row)
        return bytes_of_saves

    def add(self, item: Item, converted: Converted) -> None:
        """Append an image and its index row; every 512 images both are saved."""
        self._check_slices(item)
        row = {
            "image_id": item.image_id,
            "label": item.label,
            "source_id": item.source_id,
            "object_id": item.object_id,
            "sha256": hashlib.sha256(converted.data).hexdigest(),
            PHOTO: converted.identity,
        }
        if self.geometry is None:
            assert isinstance(item.picture, Photo)  # drawings were refused before
            row["offset"] = self.end
            row["length"] = len(converted.data)
            row["border"] = item.picture.border
        if item.attribution is not None:
            row["attribution"] = item.attribution
            self._has_attributions = True
        row.update(item.slices)
        self._unsaved_rows.append(row)
        self.labels.add(item.label)
        self._file.write(converted.data)
        self.end += len(converted.data)
        self.count += 1
        if len(self._unsaved_rows) >= SAVED_EVERY:
            self.save()

    def _check_slices(self, item: Item) -> None:
        """Refuse slices ({"corruption": "fog", "severity": 3}) unlike the first image's."""
        for name in item.slices:  # slices become columns of the index
            if name in INDEX_COLUMNS:
                raise UserError(
                    f"{item.image_id} has a slice '{name}', which is the name of a column of every "
                    "index; let the layout give it another name (taken are "
                    f"{', '.join(INDEX_COLUMNS)})."
                )
        if self._first_slices is None:
            self._first_slices = dict(item.slices)
        types = {name: type(level) for name, level in item.slices.items()}
        first_types = {name: type(level) for name, level in self._first_slices.items()}
        have_allowed_types = set(types.values()) <= SLICE_TYPES.keys()
        if types != first_types or not have_allowed_types:
            raise UserError(
                f"{item.image_id} has the slices {dict(item.slices)}, the first image "
                f"{self._first_slices}; let the layout give every image the same ones, text or "
                "int."
            )

    def save(self) -> None:
        """Write the images so far to disk, then their rows to the journal.

        In this order, a killed job leaves no rows of missing images.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        save = {
            "rows": self._unsaved_rows,
            "corrupt": self.corrupt,
            "count": self.count,
            "end": self.end,
        }
        self._journal_file.write(f"{json.dumps(save)}\n".encode())
        self._journal_file.flush()
        self._unsaved_rows = []

    def finish(self, index: Path, labels: Sequence[int], dataset: DatasetSource) -> None:
        """Complete the file, write the index and remove the journal.

        Args:
            index: Parquet file to write, one row per image.
            labels: classes that are kept, such as [3, 5], which become 0 and 1 in the index.

        Raises:
            UserError: two images have the same id; the journal is kept.
        """
        self.save()
        stores_encoded_images = self.geometry is None
        self._file.seek(0)
        self._write_header(self.end if stores_encoded_images else self.count)
        self._write_index(index, labels)
        class_keys = [dataset.space.keys[label] for label in labels]
        _refuse_repeated_ids(index, class_keys, dataset)
        self.journal.unlink()

    def _write_index(self, index: Path, labels: Sequence[int]) -> None:
        """Write all saved rows; the classes in `labels`, [3, 5], become 0 and 1."""
        schema = self._schema()
        label_in_index = {label: position for position, label in enumerate(labels)}
        with pq.ParquetWriter(index, schema, compression="zstd") as parquet:
            row_group = []
            for number, saved_row in enumerate(self._saved_rows()):
                label = label_in_index[saved_row["label"]]
                row_group.append({**saved_row, "row": number, "label": label})
                if len(row_group) == ROW_GROUP:
                    parquet.write_table(pa.Table.from_pylist(row_group, schema))
                    row_group = []
            if row_group:
                parquet.write_table(pa.Table.from_pylist(row_group, schema))

    def _schema(self) -> pa.Schema:
        """Columns of the index with their types."""
        columns = dict(COLUMNS)
        if self.geometry is None:  # images are stored encoded
            columns.update(ENCODED_COLUMNS)
        if self._has_attributions:
            columns.update(ATTRIBUTION)
        # All images have the same slices as the first, with levels of the same type.
        if self._first_slices is not None:
            for name, level in self._first_slices.items():
                columns[name] = SLICE_TYPES[type(level)]
        return pa.schema(columns)

    def _saved_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the journal, such as {"image_id": "fox", "label": 3, "source_id": ...}."""
        self._journal_file.seek(0)
        for line in self._journal_file:
            yield from json.loads(line)["rows"]

    def _write_header(self, length: int) -> None:
        """Write the header of a .npy file for `length` images, or for bytes of encoded images."""
        shape: tuple[int, ...] = (length,)
        if self.geometry:
            shape = (length, self.geometry.size, self.geometry.size, 3)
        # NumPy pads the header: its length stays the same as the first axis grows
        # (GROWTH_AXIS_MAX_DIGITS).
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _slices_of(row: Mapping[str, str | int]) -> dict[str, str | int]:
    """The columns that the layout added, such as {"corruption": "fog", "severity": 3}."""
    return {name: level for name, level in row.items() if name not in INDEX_COLUMNS}


def _refuse_repeated_ids(index: Path, keys: Sequence[str], dataset: DatasetSource) -> None:
    """A UserError if two images have the same id; `keys` are class keys by label."""
    # Hashes need less memory than texts, which are compared only if two hashes are equal.
    hashes_of_batches = []
    for batch in pq.ParquetFile(index).iter_batches(ROW_GROUP, columns=["image_id"]):
        image_ids = batch["image_id"].to_pylist()
        hashes_of_batches.append(np.array([hash(image_id) for image_id in image_ids], np.int64))
    hashes = np.concatenate(hashes_of_batches)
    all_hashes_differ = len(np.unique(hashes)) == len(hashes)
    if all_hashes_differ:
        return
    table = pq.read_table(index, columns=["image_id", "label"])
    counts = table["image_id"].value_counts()
    is_repeated = pc.greater(counts.field("counts"), 1)
    repeated_ids = counts.field("values").filter(is_repeated)
    if len(repeated_ids) == 0:
        return
    first_id = repeated_ids[0]
    descriptions = []
    for row in np.flatnonzero(pc.equal(table["image_id"], first_id))[:2].tolist():
        class_key = keys[table["label"][row].as_py()]
        descriptions.append(f"row {row}, class '{class_key}'")
    raise UserError(
        f"{dataset}: two images have the id '{first_id}' ({' and '.join(descriptions)}); rename "
        "one, or correct the layout."
    )


def _write_images(
    writer: PreparedImagesWriter,
    items: Iterable[Item],
    dataset: DatasetSource,
    expected: int | None,
    corrupt_allowed: int,
    decode_workers: int,
    folders: Sequence[str],
) -> None:
    """Write the images that an earlier, killed job has not written; check the number of all."""
    done = writer.count + len(writer.corrupt)
    if done:
        log.info("%s: resuming after %d images", dataset, done)
    progress = Progress(desc=f"preparing {dataset}", total=expected, unit="image")
    progress.update(done)
    remaining_items = islice(items, done, None)
    for item, conversion in _convert_in_threads(
        remaining_items, writer.geometry, dataset.name, decode_workers
    ):
        try:
            converted = conversion.result()
        except (CorruptImageError, TooLargeError) as error:
            writer.corrupt.append(item.image_id)
            if len(writer.corrupt) > corrupt_allowed:
                raise _too_many_corrupt(error, corrupt_allowed, folders) from error
            log.warning("%s: left out: %s", dataset, error)
        else:
            writer.add(item, converted)
        progress.update()
    progress.close()
    _check_number_of_images(writer, dataset, expected)


def _too_many_corrupt(error: UserError, corrupt_allowed: int, folders: Sequence[str]) -> UserError:
    """The error of the last corrupt image, with advice."""
    message = str(error).removesuffix(".")
    if folders:
        message += f", replace it in {' or '.join(folders)}"
    if corrupt_allowed:
        message += f" ({corrupt_allowed} may be left out)"
    else:
        message += ", or raise corrupt_images in config.yaml"
    return UserError(f"{message}.")


def _check_number_of_images(
    writer: PreparedImagesWriter, dataset: DatasetSource, expected: int | None
) -> None:
    """A UserError for no images, or for another number, with corrupt ones, than `expected`."""
    archives = ", ".join(path.name for path in dataset.archives)
    if not writer.count:
        raise UserError(
            f"{dataset}: {archives} contains no image of its classes; check the entry's layout and "
            "classes."
        )
    in_archives = writer.count + len(writer.corrupt)
    if expected is not None and in_archives != expected:
        raise UserError(
            f"{dataset}: {archives} gave {in_archives} images instead of {expected}; the archive "
            "is not the published one, or the entry's layout or classes are wrong."
        )


def _convert_in_threads(
    items: Iterable[Item], geometry: Geometry | None, dataset: str, decode_workers: int
) -> Iterator[tuple[Item, Future[Converted]]]:
    """Yields each item with a future of its stored form, in order; few images are in memory."""
    waiting: deque[tuple[Item, Future[Converted]]] = deque()
    pool = ThreadPoolExecutor(min(decode_workers, processors()))
    try:
        for item in items:
            waiting.append((item, _start_conversion(pool, item, geometry, dataset)))
            if len(waiting) > AHEAD * decode_workers:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)


def _start_conversion(
    pool: ThreadPoolExecutor, item: Item, geometry: Geometry | None, dataset: str
) -> Future[Converted]:
    """A future of the item's stored form; this thread reads, as archives must be read in order."""
    picture = item.picture
    if not isinstance(picture, Photo):
        return pool.submit(_convert_drawing, picture, item.original, dataset, geometry)
    try:
        encoded = picture.read()
    except TooLargeError as error:
        refused: Future[Converted] = Future()
        refused.set_exception(error)
        return refused
    return pool.submit(_convert_photo, encoded, picture.name, picture.border, geometry)


def _convert_photo(encoded: bytes, name: str, border: int, geometry: Geometry | None) -> Converted:
    """The photo's stored form: pixels at the geometry or, if that is None, its encoded bytes."""
    image = decode(encoded, name, border)  # in both cases, as its identity is a hash of pixels
    identity = identity_of(image)
    if geometry is None:
        return Converted(encoded, identity)
    pixels = resize_and_crop(image, geometry)
    return Converted(_bytes_at(pixels, geometry), identity)


def _convert_drawing(
    pixels: np.ndarray,
    original: Image.Image | np.ndarray | None,
    dataset: str,
    geometry: Geometry | None,
) -> Converted:
    """A drawing's stored form; `original` is the drawing before resizing, None for `pixels`."""
    if geometry is None:
        raise UserError(f"{dataset} is a drawing, not a photo; set the dataset's storage to array.")
    drawing = pixels if original is None else original
    return Converted(_bytes_at(pixels, geometry), identity_of(drawing))


def _bytes_at(pixels: np.ndarray, geometry: Geometry) -> bytes:
    """Pixels as they are stored; a layout must draw this size."""
    expected_shape = (geometry.size, geometry.size, 3)
    assert pixels.shape == expected_shape, pixels.shape
    assert pixels.dtype == np.uint8, pixels.dtype
    return pixels.tobytes()
