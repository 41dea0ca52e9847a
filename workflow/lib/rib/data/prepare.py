"""Preparation: each image decoded and resized once per geometry, into a memory-mapped array and an index."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.classes import ClassSpace
from rib.geometry import Geometry
from rib.io import Progress, UserError, verify_digest, write_json
from rib.plugins import load_module


def prepare(
    *,
    archives: Sequence[Path],
    digests: Sequence[str],
    dataset: str,
    layout: str,
    arguments: Mapping,
    space: ClassSpace,
    geometry: Geometry,
    expected: int | None,
    images: Path,
    index: Path,
    classes: Path,
    manifest: Path,
) -> None:
    """Write a dataset at one geometry. Streams: memory does not grow with the dataset.

    Args:
        archives: as published.
        digests: pinned, of each, checked again, since the files may have lain on disk for a year.
        layout: file of the layout module.
        arguments: further keywords of the layout's `items`.
        expected: how many images there must be, None where the entry doesn't say.
        images: written as .npy, (n, size, size, 3) uint8.
        index: written as Parquet: row, image_id, label, source_id, object_id, sha256 (of the pixels).
        classes: written as JSON, the class space.
        manifest: facts beside the files' hashes: n and the class space's digest.

    Raises:
        UserError: an archive is not the pinned file, or they hold no image of the classes, or a bad one.
    """
    for archive, digest in zip(archives, digests, strict=True):
        verify_digest(archive, digest, dataset)
    found = load_module(layout).items(archives, space=space, geometry=geometry, dataset=dataset, **arguments)
    rows = _write_array(images, found, geometry.size, dataset)
    if not rows:
        raise UserError(
            f"{dataset}: {', '.join(map(str, archives))} holds no image of its classes; check the entry's layout and classes."
        )
    if expected is not None and len(rows) != expected:
        raise UserError(
            f"{dataset}: {', '.join(path.name for path in archives)} gave {len(rows)} images in place of {expected}; the "
            "archive is not the published one, or its entry's layout or classes are wrong."
        )
    names = ("image_id", "label", "source_id", "object_id", "sha256")
    columns = {name: [row[position] for row in rows] for position, name in enumerate(names)}
    table = pa.table({"row": pa.array(range(len(rows)), pa.int32()), **columns})
    pq.write_table(table.set_column(2, "label", table["label"].cast(pa.int16())), index, compression="zstd")
    write_json(classes, space.to_json())
    write_json(manifest, {"n": len(rows), "classes": len(set(columns["label"])), "class_space": space.digest})


def _write_array(path: Path, items, size: int, dataset: str) -> list[tuple]:
    """Append images to an .npy file whose header is rewritten at the end, when their number is known."""
    rows = []
    with open(path, "wb") as file:
        _write_header(file, 0, size)
        for item in Progress(items, desc=f"preparing {dataset}", unit="image"):
            assert item.pixels.shape == (size, size, 3) and item.pixels.dtype == np.uint8, item.pixels.shape
            data = item.pixels.tobytes()
            file.write(data)
            rows.append((item.image_id, item.label, item.source_id, item.object_id, hashlib.sha256(data).hexdigest()))
        file.seek(0)
        _write_header(file, len(rows), size)
    return rows


def _write_header(file, count: int, size: int) -> None:
    # NumPy pads the header so that a growing first axis leaves its length unchanged (GROWTH_AXIS_MAX_DIGITS).
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)
