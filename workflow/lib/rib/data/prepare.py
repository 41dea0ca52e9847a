"""Preparation of a dataset: verified images in a memory-mapped file, and an index.

An entry's `storage` selects one of two forms. `array`: each image is decoded and resized once per geometry, so reading
is fast. `encoded`: the photos' published bytes are concatenated and decoded on use, at any geometry; this is for
datasets that are too large to store decoded.
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

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk, verify_digest, write_json
from rib.base.plugins import load_module
from rib.base.progress import Progress, log
from rib.config.geometry import Geometry
from rib.data.images import CorruptImageError, DatasetSource, Item, Photo, decode, to_geometry, without_border

ROW_GROUP = 1 << 12  # index rows in memory
SAVED_EVERY = 512  # images between two points from which a killed job resumes
AHEAD = 4  # images per worker that are read ahead of writing
COLUMNS = ("image_id", "label", "source_id", "object_id", "sha256")


def prepare(
    *,
    dataset: DatasetSource,
    digests: Sequence[str],
    layout: str,
    settings: Mapping,
    storage: str,
    expected: int | None,
    about: int | None,
    corrupt_allowed: int,
    workers: int,
    images: Path,
    index: Path,
    classes: Path,
    manifest: Path,
) -> None:
    """Write a prepared dataset. Memory use is bounded, and a killed job resumes where it stopped.

    Args:
        dataset: input of the layout.
        digests: pinned digest of each archive, or None; checked again, since the files may be old.
        layout: file of the layout module.
        settings: keyword arguments of the layout's `items`.
        storage: `array` or `encoded`.
        expected: required number of images; None if the entry doesn't state it.
        about: approximate number of images, to check the disk space.
        corrupt_allowed: maximum number of images left out because they can't be decoded.
        workers: decoding threads; their number doesn't change the output.
        images: written as .npy: (n, size, size, 3) uint8, or (bytes,) uint8 for encoded photos.
        index: written as Parquet: row, image_id, label, source_id, object_id, sha256 (of the pixels or the encoded
            bytes); also offset, length and border for encoded photos.
        classes: written as JSON, the label space.
        manifest: facts in addition to the files' hashes: n, digest of the label space, ids of corrupt images left out.

    Raises:
        UserError: an archive is not the pinned file; the archives contain no image of the classes, an unexpected
            number of images or too many corrupt ones; or the disk is too full.
    """
    for archive, digest in zip(dataset.archives, digests, strict=True):
        if digest:
            verify_digest(archive, digest, dataset.name)
    store = Encoded() if storage == "encoded" else Arrays(dataset.geometry)
    if likely := expected or about:
        there = images.stat().st_size if images.exists() else 0
        refuse_full_disk(
            images.parent, max(0, store.bytes_of(likely, dataset.archives) - there), f"preparing {dataset}"
        )
    items = load_module(layout).items(dataset, **settings)
    with Written(images, store) as written:
        _write(written, items, dataset.name, expected, corrupt_allowed, workers)
        found, corrupt = written.count, written.corrupt
        _check_count(found, len(corrupt), expected, f"{dataset}: {', '.join(path.name for path in dataset.archives)}")
        shown = written.finish(index)
    write_json(classes, dataset.space.to_json())
    write_json(manifest, {"n": found, "classes": shown, "label_space": dataset.space.digest, "corrupt": corrupt})


def _check_count(found: int, corrupt: int, expected: int | None, where: str) -> None:
    if not found:
        raise UserError(f"{where} contains no image of its classes; check the entry's layout and classes.")
    if expected is not None and found + corrupt != expected:
        raise UserError(
            f"{where} gave {found + corrupt} images instead of {expected}; the archive is not the published one, or "
            "the entry's layout or classes are wrong."
        )


class Arrays:
    """Images decoded at one geometry."""

    columns = ()

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self.tail = (geometry.size, geometry.size, 3)

    def bytes_of(self, images: int, archives: Sequence[Path]) -> int:
        return images * self.geometry.size**2 * 3

    def convert(self, picture: np.ndarray | bytes, name: str, border: int) -> tuple[bytes, tuple]:
        """Bytes to write, and additional index columns."""
        pixels = picture if isinstance(picture, np.ndarray) else to_geometry(picture, name, border, self.geometry)
        assert pixels.shape == self.tail and pixels.dtype == np.uint8, pixels.shape
        return pixels.tobytes(), ()


class Encoded:
    """Photos as published, each decoded once to verify it."""

    columns = ("offset", "length", "border")
    tail = ()

    def bytes_of(self, images: int, archives: Sequence[Path]) -> int:
        return sum(path.stat().st_size for path in archives)

    def convert(self, picture: np.ndarray | bytes, name: str, border: int) -> tuple[bytes, tuple]:
        """Bytes to write, and additional index columns; the offset is added on writing."""
        if isinstance(picture, np.ndarray):
            raise UserError(f"{name} is a drawing, not a photo; set the dataset's storage to array.")
        without_border(decode(picture, name), name, border)
        return picture, (len(picture), border)


class Written:
    """A growing .npy file and its index rows, saved periodically so that a killed job can resume.

    Rows are kept in a journal on disk, one line per save: rows, ids of corrupt images, images and bytes so far.

    Args:
        path: the .npy file; the journal lies next to it until the file is complete.
        store: storage form of the images.
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
        """Restore the state from the last complete line; return the number of bytes up to its end."""
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
        offset = (self.end,) if self.store.columns else ()
        digest = hashlib.sha256(data).hexdigest()
        self._since.append([item.image_id, item.label, item.source_id, item.object_id, digest, *offset, *more])
        self._file.write(data)
        self.end += len(data)
        self.count += 1
        if len(self._since) >= SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Flush to disk, the images before their rows."""
        self._file.flush()
        os.fsync(self._file.fileno())
        line = json.dumps([self._since, self.corrupt, self.count, self.end])
        self._lines.write(f"{line}\n".encode())
        self._lines.flush()
        self._since = []

    def finish(self, index: Path) -> int:
        """Complete the file, write the index and return the number of classes with images."""
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
        # NumPy pads the header so that its length doesn't change as the first axis grows (GROWTH_AXIS_MAX_DIGITS).
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.store.tail)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _write(
    written: Written, items: Iterable[Item], dataset: str, expected: int | None, allowed: int, workers: int
) -> None:
    """Append the images that aren't written yet."""
    done = written.count + len(written.corrupt)
    if done:
        log.info("%s: resuming after %d images", dataset, done)
    progress = Progress(desc=f"preparing {dataset}", total=expected, unit="image")
    progress.update(done)
    for item, converted in _converted(itertools.islice(items, done, None), written.store, dataset, workers):
        if isinstance(converted, CorruptImageError):
            written.corrupt.append(item.image_id)
            if len(written.corrupt) > allowed:
                hint = f" ({allowed} may be left out)" if allowed else "; or raise corrupt_images in config.yaml"
                raise UserError(f"{str(converted).removesuffix('.')}{hint}.") from converted
            log.warning("%s: left out: %s", dataset, converted)
        else:
            written.add(item, *converted)
        progress.update()
    progress.close()


def _converted(
    items: Iterable[Item], store: Arrays | Encoded, dataset: str, workers: int
) -> Iterator[tuple[Item, tuple[bytes, tuple] | CorruptImageError]]:
    """Convert images in several threads, a few ahead, and yield them in order."""

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
