"""Small idx files, written with struct alone, and photos for them."""

import struct
from pathlib import Path

import numpy as np

from rib.catalog.label_space import LabelSpace

SIDE = 28
DIGITS = tuple("0123456789")
SPACE = LabelSpace(DIGITS, tuple((label,) for label in range(10)), DIGITS, 10)


def idx_images(photos: np.ndarray) -> bytes:
    """The idx file of photos, (n, height, width) uint8."""
    return struct.pack(">4I", 0x803, *photos.shape) + photos.tobytes()


def idx_labels(labels) -> bytes:
    """The idx file of labels."""
    return struct.pack(">2I", 0x801, len(labels)) + bytes(labels)


def garments(number: int) -> np.ndarray:
    """Photos of bright boxes of several sizes and tones on black, (number, 28, 28) uint8.

    They are made of whole numbers, so that they are the same everywhere.
    """
    photos = np.zeros((number, SIDE, SIDE), np.uint8)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    for count in range(number):
        tone = 60 + (rows * 7 + columns * (3 + count % 5) + 37 * count) % 196
        half_width = 4 + count % 7
        is_body = (rows > 3) & (abs(columns - 13) <= half_width)
        is_sleeve = (rows > 3) & (rows < 10 + count % 6) & (abs(columns - 13) < 12)
        photos[count] = np.where(is_body | is_sleeve, tone, 0)
    return photos


def write_collection(folder: Path, number: int = 40, part: str = "train") -> list[Path]:
    """Write a part of a collection, its labels in turn from 9 to 0; gives the two paths."""
    photos = folder / f"{part}-images-idx3-ubyte"
    photos.write_bytes(idx_images(garments(number)))
    labels = folder / f"{part}-labels-idx1-ubyte"
    labels.write_bytes(idx_labels([9 - count % 10 for count in range(number)]))
    return [photos, labels]
