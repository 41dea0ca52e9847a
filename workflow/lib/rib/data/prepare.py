"""Preparation of a dataset: verified images in a memory-mapped file, and an index.

An entry's `storage` selects one of two forms. `array`: each image is decoded and resized once per geometry, so reading
is fast. `encoded`: the photos' published bytes are concatenated and decoded on use, at any geometry; this is for
datasets that are too large to store decoded.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk, verify_digest, write_json
from rib.base.plugins import load_module
from rib.base.progress import Progress, log
from rib.config.geometry import Geometry
from rib.data.archives import TooLargeError
from rib.data.identity import (
    PHOTO,
    identical_images,
    identity_of,
    of_other_classes,
    read_identities,
)
from rib.data.images import CorruptImageError, DatasetSource, Item, Photo, decode, resize_and_crop
from rib.data.prepared import INDEX_COLUMNS
from rib.data.settings import PreparationSettings

ROW_GROUP = 1 << 12  # index rows in memory
SAVED_EVERY = 512  # images between two points from which a killed job resumes
FEWEST_CLASSES = 2  # of a dataset
AHEAD = 4  # images per worker that are read ahead of writing
COLUMNS = {"row": pa.int32(), "image_id": pa.string(), "label": pa.int16()}
COLUMNS |= dict.fromkeys(["source_id", "object_id", "sha256", PHOTO], pa.string())
PLACES = dict.fromkeys(
    ["offset", "length", "border"], pa.int64()
)  # more columns for encoded photos


@dataclass(frozen=True)
class PreparationOutput:
    """Files that a preparation writes."""

    images: Path  # .npy: (n, size, size, 3) uint8, or (bytes,) uint8 for encoded photos
    # Parquet: row, image_id, label, source_id, object_id, sha256 (of the pixels or the encoded
    # bytes), photo_sha256 (see `identity_of`); also offset, length and border for encoded photos,
    # and the layout's slices
    index: Path
    classes: Path  # JSON, the label space; labels in the index are indices in it
    # JSON: n, number of classes with images, digest of the label space, ids of corrupt images left
    # out, numbers of images that are identical to another and to one of another class
    manifest: Path


def prepare(
    *,
    name: str,
    archives: Sequence[Path],
    settings: PreparationSettings,
    corrupt_allowed: int,
    workers: int,
    output: PreparationOutput,
) -> None:
    """Write a prepared dataset. Memory use is bounded, and a killed job resumes where it stopped.

    Args:
        name: that of the dataset.
        archives: in the order of the dataset's entry; their digests are checked again, since the
            files may be old.
        corrupt_allowed: maximum number of images left out because they can't be decoded.
        workers: decoding threads; their number doesn't change the output.

    Raises:
        UserError: an archive is not the pinned file; the archives contain no image of the classes,
            or of only one with `classes_per_dataset`, an unexpected number of images or too many
            corrupt ones; two images have one id or different slices; or the disk is too full.
    """
    for archive, digest in zip(archives, settings.digests, strict=True):
        if digest:
            verify_digest(archive, digest, name)
    dataset = DatasetSource(
        name=name,
        archives=archives,
        space=settings.space,
        geometry=settings.geometry,
        source_group=settings.source_group,
        icons=settings.icons,
        exclude=settings.exclude,
    )
    geometry = None if settings.storage == "encoded" else settings.geometry
    _refuse_full_disk(dataset, settings, geometry, output.images)
    items = load_module(settings.layout).items(dataset, **settings.settings)
    with Written(output.images, geometry) as written:
        _write(written, items, dataset, settings.expected, corrupt_allowed, workers)
        space = dataset.space
        labels = range(len(space.keys))
        if settings.classes_per_dataset:
            space = space.restricted(written.labels)
            labels = sorted(written.labels)
            if len(labels) < FEWEST_CLASSES:
                raise UserError(
                    f"{dataset}: '{space.keys[0]}' is its only class with images; "
                    "add images of another."
                )
        written.finish(output.index, labels, dataset)
    write_json(output.classes, space.to_json())
    facts = {
        "n": written.count,
        "classes": len(written.labels),
        "label_space": space.digest,
        "corrupt": written.corrupt,
        **_identical(output.index, dataset),
    }
    write_json(output.manifest, facts)


def _refuse_full_disk(
    dataset: DatasetSource, settings: PreparationSettings, geometry: Geometry | None, images: Path
) -> None:
    """Raise a UserError if the disk has no place for the images that are not written yet."""
    likely_number = settings.expected or settings.about
    if not likely_number:
        return
    if geometry is None:
        needed = sum(archive.stat().st_size for archive in dataset.archives)
    else:
        needed = likely_number * geometry.size**2 * 3
    already_written = images.stat().st_size if images.exists() else 0
    missing = max(0, needed - already_written)
    refuse_full_disk(images.parent, missing, f"preparing {dataset}")


def _identical(index: Path, dataset: DatasetSource) -> dict[str, int]:
    """Numbers of images that are identical to another, and to one of another class, with log lines."""
    identities = read_identities(index)
    labels = pq.read_table(index, columns=["label"])["label"].to_numpy().astype(np.int64)
    identical = int(identical_images(identities).sum())
    of_others = int(of_other_classes(identities, labels).sum())
    if identical:
        said = "%s: %d of %d images are identical to another, which counts as one source image"
        log.info(said, dataset, identical, len(labels))
    if of_others:
        said = "%s: %d images are identical to one of another class: one of the labels is arbitrary"
        log.warning(said, dataset, of_others)
    return {"identical": identical, "identical_of_other_classes": of_others}


@dataclass(frozen=True)
class Converted:
    """An image as it is written."""

    data: bytes  # pixels at a geometry, or an encoded photo
    photo: str  # see `identity_of`


class Written:
    """A growing .npy file and its index rows, saved periodically so that a killed job can resume.

    Until it is complete, rows are kept in a journal next to it, one line per save: rows, ids of corrupt images, images
    and bytes so far. Encoded photos have no geometry.
    """

    def __init__(self, path: Path, geometry: Geometry | None):
        self.path, self.geometry = path, geometry
        self.journal = path.with_suffix(".journal")
        self.corrupt: list[str] = []
        self.labels: set[int] = set()  # of the images so far
        self.count = self.end = 0
        self._since: list[list] = []
        self._slices: dict[str, str | int] | None = None  # of the first image

    def __enter__(self) -> "Written":
        self._lines = open(self.journal, "a+b")
        self._lines.seek(0)
        whole = 0
        for line in self._lines:
            if line.endswith(b"\n"):
                whole += len(line)
                rows, self.corrupt, self.count, self.end = json.loads(line)
                self.labels.update(row[1] for row in rows)
                self._slices = rows[0][-1] if rows and self._slices is None else self._slices
        self._lines.truncate(whole)
        self._file = open(self.path, "r+b" if whole else "wb")
        self._write_header(0)
        self._file.truncate(self._file.tell() + self.end)
        self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *error) -> None:
        self._file.close()
        self._lines.close()

    def add(self, item: Item, converted: Converted) -> None:
        data = converted.data
        more = () if self.geometry else (self.end, len(data), item.picture.border)
        self._check_slices(item)
        ids = [item.image_id, item.label, item.source_id, item.object_id]
        digests = [hashlib.sha256(data).hexdigest(), converted.photo]
        self._since.append([*ids, *digests, *more, dict(item.slices)])
        self.labels.add(item.label)
        self._file.write(data)
        self.end += len(data)
        self.count += 1
        if len(self._since) >= SAVED_EVERY:
            self.save()

    def _check_slices(self, item: Item) -> None:
        self._slices = dict(item.slices) if self._slices is None else self._slices
        first, own = (
            {name: type(v) for name, v in slices.items()} for slices in (self._slices, item.slices)
        )
        if (
            own != first
            or not {str, int}.issuperset(own.values())
            or own.keys() & set(INDEX_COLUMNS)
        ):
            raise UserError(
                f"{item.image_id} has the slices {dict(item.slices)}, the first image {self._slices}; let the layout "
                "give every image the same ones, text or int, not named like a column of the index."
            )

    def save(self) -> None:
        """Flush to disk, the images before their rows."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._lines.write(
            f"{json.dumps([self._since, self.corrupt, self.count, self.end])}\n".encode()
        )
        self._lines.flush()
        self._since = []

    def finish(self, index: Path, labels: Sequence[int], dataset: DatasetSource) -> None:
        """Complete the file and write the index, in which a label is its place in `labels`."""
        self.save()
        self._file.seek(0)
        self._write_header(self.count if self.geometry else self.end)
        fixed = COLUMNS if self.geometry else COLUMNS | PLACES
        kinds = {str: pa.dictionary(pa.int32(), pa.string()), int: pa.int64()}
        schema = pa.schema(
            fixed | {name: kinds[type(value)] for name, value in (self._slices or {}).items()}
        )
        self._lines.seek(0)
        rows = enumerate(row for line in self._lines for row in json.loads(line)[0])
        places = {label: place for place, label in enumerate(labels)}
        changed = ((number, row[0], places[row[1]], *row[2:]) for number, row in rows)
        named = (dict(zip(fixed, row, strict=True)) | slices for *row, slices in changed)
        with pq.ParquetWriter(index, schema, compression="zstd") as writer:
            while group := list(islice(named, ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))
        _refuse_repeated_ids(index, [dataset.space.keys[label] for label in labels], dataset)
        self.journal.unlink()

    def _write_header(self, count: int) -> None:
        # NumPy pads the header so that its length doesn't change as the first axis grows (GROWTH_AXIS_MAX_DIGITS).
        shape = (count, self.geometry.size, self.geometry.size, 3) if self.geometry else (count,)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )


def _refuse_repeated_ids(index: Path, keys: Sequence[str], dataset: DatasetSource) -> None:
    """Refuse two images with one id. Ids are compared as text only if two hashes are equal, to save memory."""
    batches = pq.ParquetFile(index).iter_batches(ROW_GROUP, columns=["image_id"])
    hashes = np.fromiter(
        (hash(name) for batch in batches for name in batch["image_id"].to_pylist()), np.int64
    )
    if len(np.unique(hashes)) == len(hashes):
        return
    table = pq.read_table(index, columns=["image_id", "label"])
    counts = table["image_id"].value_counts()
    for name in counts.field("values").filter(pc.greater(counts.field("counts"), 1)):
        rows = np.flatnonzero(pc.equal(table["image_id"], name))[:2].tolist()
        both = " and ".join(
            f"row {row}, class '{keys[table['label'][row].as_py()]}'" for row in rows
        )
        raise UserError(
            f"{dataset}: two images have the id '{name}' ({both}); rename one, or correct the layout."
        )


def _write(
    written: Written,
    items: Iterable[Item],
    dataset: DatasetSource,
    expected: int | None,
    allowed: int,
    workers: int,
) -> None:
    """Append the images that aren't written yet, and check the number of all."""
    done = written.count + len(written.corrupt)
    if done:
        log.info("%s: resuming after %d images", dataset, done)
    progress = Progress(desc=f"preparing {dataset}", total=expected, unit="image")
    progress.update(done)
    for item, converted in _converted(
        islice(items, done, None), written.geometry, dataset.name, workers
    ):
        try:
            image = converted.result()
        except (CorruptImageError, TooLargeError) as error:
            written.corrupt.append(item.image_id)
            if len(written.corrupt) > allowed:
                hint = (
                    f" ({allowed} may be left out)"
                    if allowed
                    else "; or raise corrupt_images in config.yaml"
                )
                raise UserError(f"{str(error).removesuffix('.')}{hint}.") from error
            log.warning("%s: left out: %s", dataset, error)
        else:
            written.add(item, image)
        progress.update()
    progress.close()
    found = written.count + len(written.corrupt)
    where = f"{dataset}: {', '.join(path.name for path in dataset.archives)}"
    if not written.count:
        raise UserError(
            f"{where} contains no image of its classes; check the entry's layout and classes."
        )
    if expected is not None and found != expected:
        raise UserError(
            f"{where} gave {found} images instead of {expected}; the archive is not the published one, or the entry's "
            "layout or classes are wrong."
        )


def _converted(
    items: Iterable[Item], geometry: Geometry | None, dataset: str, workers: int
) -> Iterator[tuple[Item, Future[Converted]]]:
    """Convert images in several threads, a few ahead, and yield them in order."""
    waiting, pool = deque(), ThreadPoolExecutor(workers)
    try:
        for item in items:
            picture = item.picture
            try:
                if isinstance(picture, Photo):
                    job = pool.submit(
                        _convert_photo, picture.read(), picture.name, picture.border, geometry
                    )
                else:
                    job = pool.submit(_convert_drawing, picture, item.original, dataset, geometry)
            except TooLargeError as error:
                job = Future()
                job.set_exception(error)
            waiting.append((item, job))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)


def _convert_photo(data: bytes, name: str, border: int, geometry: Geometry | None) -> Converted:
    """A photo at a geometry, or its encoded bytes; it is decoded once in either case."""
    image = decode(data, name, border)
    photo = identity_of(image)
    if geometry is None:
        return Converted(data, photo)
    return Converted(_bytes_at(resize_and_crop(image, geometry), geometry), photo)


def _convert_drawing(
    pixels: np.ndarray,
    original: Image.Image | np.ndarray | None,
    dataset: str,
    geometry: Geometry | None,
) -> Converted:
    """A drawing at a geometry; its identity is that of its original, if the layout gives one."""
    if geometry is None:
        raise UserError(f"{dataset} is a drawing, not a photo; set the dataset's storage to array.")
    return Converted(
        _bytes_at(pixels, geometry), identity_of(pixels if original is None else original)
    )


def _bytes_at(pixels: np.ndarray, geometry: Geometry) -> bytes:
    assert pixels.shape == (geometry.size, geometry.size, 3) and pixels.dtype == np.uint8, (
        pixels.shape
    )
    return pixels.tobytes()
