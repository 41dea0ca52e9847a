"""Preparation of a dataset: images verified, in a file that is memory-mapped, and an index.

Two forms (an entry's `storage`). `array`: each image decoded and resized once per geometry, fast to read.
`encoded`: the photos' bytes as published, one after the other, for sets too large to be kept decoded; they are decoded
when used, at any geometry.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.classes import ClassSpace
from rib.data.images import CorruptImageError, Item, Photo, decode, to_geometry, without_border
from rib.geometry import Geometry
from rib.io import Progress, UserError, log, refuse_full_disk, verify_digest, write_json
from rib.plugins import load_module

ROW_GROUP = 1 << 12  # rows of the index that are held in memory
SAVED_EVERY = 512  # images between two points from which a killed job goes on
AHEAD = 4  # images per worker that are read before the oldest is written
COLUMNS = ("image_id", "label", "source_id", "object_id", "sha256")


def prepare(
    *,
    archives: Sequence[Path],
    digests: Sequence[str],
    dataset: str,
    layout: str,
    arguments: Mapping,
    space: ClassSpace,
    storage: str,
    geometry: Geometry | None,
    expected: int | None,
    about: int | None,
    corrupt_allowed: int,
    workers: int,
    images: Path,
    index: Path,
    classes: Path,
    manifest: Path,
) -> None:
    """Write a dataset. Memory doesn't grow with it, and a killed job goes on where it was.

    Args:
        archives: as published.
        digests: pinned, of each (None where none is), checked again, since the files may have lain on disk for a year.
        layout: file of the layout module.
        arguments: further keywords of the layout's `items`.
        storage: `array` or `encoded`.
        geometry: of the arrays; None for encoded photos.
        expected: how many images there must be, None where the entry doesn't say.
        about: how many there are by all that is known, for the disk they take.
        corrupt_allowed: how many images may be left out since they can't be decoded.
        workers: threads that decode; their number changes no byte.
        images: written as .npy: (n, size, size, 3) uint8, or of encoded photos (bytes,) uint8.
        index: written as Parquet: row, image_id, label, source_id, object_id, sha256 (of the pixels, or of the
            encoded bytes, which then have offset, length and border too).
        classes: written as JSON, the class space.
        manifest: facts beside the files' hashes: n, the class space's digest, ids of corrupt images left out.

    Raises:
        UserError: an archive is not the pinned file, or they hold no image of the classes, or another number than
            expected, or more corrupt ones than allowed, or the disk is too full.
    """
    for archive, digest in zip(archives, digests, strict=True):
        if digest:
            verify_digest(archive, digest, dataset)
    store = Encoded() if storage == "encoded" else Arrays(geometry)
    if likely := expected or about:
        there = images.stat().st_size if images.exists() else 0
        refuse_full_disk(images.parent, max(0, store.bytes_of(likely, archives) - there), f"preparing {dataset}")
    items = load_module(layout).items(archives, space=space, geometry=geometry, dataset=dataset, **arguments)
    with Written(images, store) as written:
        _write(written, items, dataset, expected, corrupt_allowed, workers)
        found, corrupt = written.count, written.corrupt
        _check_count(found, len(corrupt), expected, f"{dataset}: {', '.join(path.name for path in archives)}")
        shown = written.finish(index)
    write_json(classes, space.to_json())
    write_json(manifest, {"n": found, "classes": shown, "class_space": space.digest, "corrupt": corrupt})


def _check_count(found: int, corrupt: int, expected: int | None, where: str) -> None:
    if not found:
        raise UserError(f"{where} holds no image of its classes; check the entry's layout and classes.")
    if expected is not None and found + corrupt != expected:
        raise UserError(
            f"{where} gave {found + corrupt} images in place of {expected}; the archive is not the published one, or its "
            "entry's layout or classes are wrong."
        )


class Arrays:
    """Images decoded to a geometry."""

    columns = ()

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self.tail = (geometry.size, geometry.size, 3)

    def bytes_of(self, images: int, archives: Sequence[Path]) -> int:
        return images * self.geometry.size**2 * 3

    def convert(self, picture: np.ndarray | bytes, name: str, border: int) -> tuple[bytes, tuple]:
        """Bytes to write, and further columns of the index."""
        pixels = picture if isinstance(picture, np.ndarray) else to_geometry(picture, name, border, self.geometry)
        assert pixels.shape == self.tail and pixels.dtype == np.uint8, pixels.shape
        return pixels.tobytes(), ()


class Encoded:
    """Photos as published, each decoded once here to see that it can be."""

    columns = ("offset", "length", "border")
    tail = ()

    def bytes_of(self, images: int, archives: Sequence[Path]) -> int:
        return sum(path.stat().st_size for path in archives)

    def convert(self, picture: np.ndarray | bytes, name: str, border: int) -> tuple[bytes, tuple]:
        """Bytes to write, and further columns of the index; the offset is known when they are written."""
        if isinstance(picture, np.ndarray):
            raise UserError(f"{name} is drawn, not a photo; set the dataset's storage to array.")
        without_border(decode(picture, name), name, border)
        return picture, (len(picture), border)


class Written:
    """An .npy file and its rows as they grow, saved now and then so that a killed job can go on.

    Rows wait in a journal on disk, a line per save: rows, ids of corrupt images, images and bytes so far.

    Args:
        path: of the .npy file; the journal is kept beside it until it is finished.
        store: the form of the images.
    """

    def __init__(self, path: Path, store: Arrays | Encoded):
        self.path, self.store = path, store
        self.journal = path.with_suffix(".journal")
        self.corrupt: list[str] = []
        self.count = self.end = 0
        self._since: list[list] = []

    def __enter__(self) -> "Written":
        whole = self._whole_lines()
        self._lines = open(self.journal, "r+b" if whole else "wb")
        self._lines.truncate(whole)
        self._lines.seek(whole)
        self._file = open(self.path, "r+b" if whole else "wb")
        self._write_header(0)
        self._file.truncate(self._file.tell() + self.end)
        self._file.seek(0, os.SEEK_END)
        return self

    def _whole_lines(self) -> int:
        """Take up what the last complete line says; returns the bytes up to its end."""
        whole = 0
        if self.journal.exists():
            with open(self.journal, "rb") as lines:
                for line in lines:
                    if line.endswith(b"\n"):
                        whole += len(line)
                        _, self.corrupt, self.count, self.end = json.loads(line)
        return whole

    def __exit__(self, *error) -> None:
        self._file.close()
        self._lines.close()

    def add(self, item: Item, data: bytes, more: tuple) -> None:
        """Append an image."""
        offset = (self.end,) if self.store.columns else ()
        digest = hashlib.sha256(data).hexdigest()
        self._since.append([item.image_id, item.label, item.source_id, item.object_id, digest, *offset, *more])
        self._file.write(data)
        self.end += len(data)
        self.count += 1
        if len(self._since) >= SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Bring everything to disk, the bytes before the rows that speak of them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        line = json.dumps([self._since, self.corrupt, self.count, self.end])
        self._lines.write(f"{line}\n".encode())
        self._lines.flush()
        self._since = []

    def finish(self, index: Path) -> int:
        """Complete the file, write the index and return the number of classes that have images."""
        self.save()
        self._file.seek(0)
        self._write_header(self.count if self.store.tail else self.end)
        labels = set()
        with open(self.journal, "rb") as lines:
            rows = (row for line in lines for row in json.loads(line)[0])
            with contextlib.ExitStack() as stack:
                writer = None
                for start in itertools.count(0, ROW_GROUP):
                    table = self._table(list(itertools.islice(rows, ROW_GROUP)), start)
                    writer = writer or stack.enter_context(pq.ParquetWriter(index, table.schema, compression="zstd"))
                    if not len(table):
                        break
                    writer.write_table(table)
                    labels.update(table["label"].unique().to_pylist())
        self.journal.unlink()
        return len(labels)

    def _table(self, rows: Sequence[list], start: int) -> pa.Table:
        columns = list(zip(*rows, strict=True)) or [()] * (len(self._schema) - 1)
        values = [range(start, start + len(rows)), *columns]
        return pa.table(
            [pa.array(part, kind) for part, kind in zip(values, self._schema.types, strict=True)], self._schema
        )

    @property
    def _schema(self) -> pa.Schema:
        text = {name: pa.string() for name in COLUMNS}
        more = {name: pa.int64() for name in self.store.columns}
        return pa.schema({"row": pa.int32(), **text, "label": pa.int16(), **more})

    def _write_header(self, count: int) -> None:
        # NumPy pads the header so that a growing first axis leaves its length unchanged (GROWTH_AXIS_MAX_DIGITS).
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.store.tail)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _write(
    written: Written, items: Iterable[Item], dataset: str, expected: int | None, allowed: int, workers: int
) -> None:
    """Append what isn't there yet."""
    done = written.count + len(written.corrupt)
    if done:
        log.info("%s: going on after %d images", dataset, done)
    progress = Progress(desc=f"preparing {dataset}", total=expected, unit="image")
    progress.update(done)
    for item, converted in _converted(itertools.islice(items, done, None), written.store, dataset, workers):
        if isinstance(converted, CorruptImageError):
            written.corrupt.append(item.image_id)
            if len(written.corrupt) > allowed:
                hint = (
                    f" ({allowed} may be left out)" if allowed else "; or let corrupt_images in config.yaml allow some"
                )
                raise UserError(f"{str(converted).removesuffix('.')}{hint}.") from converted
            log.warning("%s: left out: %s", dataset, converted)
        else:
            written.add(item, *converted)
        progress.update()
    progress.close()


def _converted(
    items: Iterable[Item], store: Arrays | Encoded, dataset: str, workers: int
) -> Iterator[tuple[Item, tuple[bytes, tuple] | CorruptImageError]]:
    """Convert images on several threads, a few ahead of the one that is yielded; in their order."""

    def convert(picture: np.ndarray | bytes, name: str, border: int):
        try:
            return store.convert(picture, name, border)
        except CorruptImageError as error:
            return error

    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                picture = item.picture
                photo = isinstance(picture, Photo)
                arguments = (picture.read(), picture.name, picture.border) if photo else (picture, dataset, 0)
                waiting.append((item, pool.submit(convert, *arguments)))
                if len(waiting) > AHEAD * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
