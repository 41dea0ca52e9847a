"""Images and labels in idx files, the format of MNIST, plain or in a rendition.

A collection has files <part>-images-idx3-ubyte and <part>-labels-idx1-ubyte; MNIST's parts are
`train` and `t10k`. Format: http://yann.lecun.com/exdb/mnist (all numbers big-endian).
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from rib.base.errors import UserError
from rib.data.images import DatasetSource, Item, resize_and_crop
from rib.data.renditions import RENDITIONS

IMAGES = "images-idx3-ubyte"
LABELS = "labels-idx1-ubyte"
# Two zero bytes, type of the numbers (8: bytes), number of dimensions.
MAGIC_NUMBER_OF_IMAGES = 0x00000803
MAGIC_NUMBER_OF_LABELS = 0x00000801
LONGEST_SIDE = 1024  # pixels of an image
DIGITS_OF_NUMBER = 5  # of an image's number in its id


def items(
    dataset: DatasetSource,
    *,
    collection: str,
    part: str,
    first: int,
    last: int,
    rendition: str = "plain",
    border: int = 0,
) -> Iterator[Item]:
    """Yield some images of each class in the order of the file, in a rendition.

    Images of each class are counted from 0. A dataset takes the range from `first` to before
    `last`, so datasets of one part with disjoint ranges share no image.

    Args:
        dataset: the idx files; label space keys are the labels as numbers; `exclude` has image ids
            (`<part>/<number in the file>`).
        collection: prefix of source ids, such as `fashion`; the same in all datasets of these
            files.
        part: first part of the file names, such as `train`.
        first: number of the first image of each class.
        last: number after the last image of each class.
        rendition: a key of `rib.data.renditions.RENDITIONS`.
        border: black pixels added on each side.

    Raises:
        UserError: a file is missing, truncated or no idx file, a label is no class, a class has too
            few images, or a setting is out of range.
    """
    if rendition not in RENDITIONS:
        raise UserError(
            f"{dataset}: there is no rendition '{rendition}'; choose one of "
            f"{', '.join(RENDITIONS)}."
        )
    if not 0 <= border <= LONGEST_SIDE:
        raise UserError(
            f"{dataset}: border is {border}; set 0 to {LONGEST_SIDE} pixels in its settings."
        )
    images = read_photos(_archive(dataset, f"{part}-{IMAGES}"))
    labels_path = _archive(dataset, f"{part}-{LABELS}")
    labels = read_labels(labels_path)
    if len(labels) != len(images):
        raise UserError(
            f"{labels_path} has {len(labels)} labels, but there are {len(images)} images; fetch "
            "both files again."
        )
    class_of_label = _class_of_each_label(dataset)
    _refuse_unknown_labels(labels, class_of_label, labels_path)
    _refuse_range(first, last, labels, class_of_label, dataset)
    rank = rank_in_class(labels)
    is_in_range = (first <= rank) & (rank < last)
    for number in np.flatnonzero(is_in_range).tolist():
        image_id = f"{part}/{number:0{DIGITS_OF_NUMBER}d}"  # such as train/00042
        if image_id in dataset.exclude:
            continue
        source_id = f"{collection}/{image_id}"
        padded = np.pad(images[number], border)
        drawing = RENDITIONS[rendition](padded, f"{rendition}/{source_id}")
        image = Image.fromarray(drawing).convert("RGB")
        yield Item(
            image_id=image_id,
            label=class_of_label[int(labels[number])],
            source_id=source_id,
            object_id=source_id,
            picture=resize_and_crop(image, dataset.drawing_geometry),
            original=drawing,
        )


def read_photos(path: Path) -> np.ndarray:
    """The images of an idx file, (n, height, width) uint8, memory-mapped.

    Raises:
        UserError: the file is truncated, too long or no idx file of images.
    """
    number, height, width = _read_header(path, MAGIC_NUMBER_OF_IMAGES, 3)
    if not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE):
        raise UserError(
            f"{path} states images of {height} x {width} pixels; sides of 1 to {LONGEST_SIDE} are "
            "read."
        )
    return _read_bytes(path, (number, height, width))


def read_labels(path: Path) -> np.ndarray:
    """The labels of an idx file, (n,) uint8.

    Raises:
        UserError: the file is truncated, too long or no idx file of labels.
    """
    (number,) = _read_header(path, MAGIC_NUMBER_OF_LABELS, 1)
    return _read_bytes(path, (number,))


def _read_header(path: Path, magic_number: int, dimensions: int) -> tuple[int, ...]:
    """Lengths of the dimensions, such as (60000, 28, 28); the magic number must be as given."""
    header = struct.Struct(f">{1 + dimensions}I")  # big-endian integers of four bytes
    with open(path, "rb") as file:
        first_bytes = file.read(header.size)
    if len(first_bytes) < header.size:
        raise UserError(f"{path} ends within its header; fetch it again.")
    stated_magic_number, *lengths = header.unpack(first_bytes)
    if stated_magic_number != magic_number:
        raise UserError(
            f"{path} begins with the magic number {stated_magic_number:#010x} instead of "
            f"{magic_number:#010x}; it is not the decompressed idx file that the layout needs."
        )
    return tuple(lengths)


def _read_bytes(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """All bytes after the header as an array of this shape, uint8, mapped from the file."""
    header_size = 4 * (1 + len(shape))
    number_of_bytes = math.prod(shape)
    size_by_header = header_size + number_of_bytes
    size = path.stat().st_size
    if size != size_by_header:
        raise UserError(
            f"{path} has {size} bytes instead of the {size_by_header} that its header states; "
            "fetch it again."
        )
    if number_of_bytes == 0:
        raise UserError(f"{path} is empty by its header; fetch it again.")
    return np.memmap(path, np.uint8, "r", header_size, shape)


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Number of earlier images with the same label: (n,) int64.

    Labels 3, 7, 3, 3 give 0, 0, 1, 2.
    """
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        images_with_label = np.flatnonzero(labels == label)
        rank[images_with_label] = np.arange(len(images_with_label))
    return rank


def _archive(dataset: DatasetSource, name: str) -> Path:
    """The dataset's archive with this name; a UserError if there is none."""
    for archive in dataset.archives:
        if archive.name == name:
            return archive
    names = ", ".join(archive.name for archive in dataset.archives)
    raise UserError(
        f"{dataset}: none of its archives is called {name} (they are {names or 'none'}); correct "
        "its sources, or part in its settings."
    )


def _class_of_each_label(dataset: DatasetSource) -> dict[int, int]:
    """Class index by label: keys "3" and "7" give {3: 0, 7: 1}."""
    class_of_label = {}
    for class_index, key in enumerate(dataset.space.keys):
        if not (key.isascii() and key.isdigit()):
            raise UserError(
                f"{dataset}: its layout has labels that are numbers, but it has a class '{key}'; "
                "correct layout or classes."
            )
        class_of_label[int(key)] = class_index
    return class_of_label


def _refuse_unknown_labels(labels: np.ndarray, class_of_label: dict[int, int], path: Path) -> None:
    """A UserError if a label in the file is no class."""
    is_unknown = ~np.isin(labels, list(class_of_label))
    if is_unknown.any():
        number = int(np.argmax(is_unknown))
        known_labels = ", ".join(map(str, sorted(class_of_label)))
        raise UserError(
            f"{path} says that the image {number} has the label {labels[number]}, which is none of "
            f"the classes {known_labels}; fetch it again, or correct the classes."
        )


def _refuse_range(
    first: int,
    last: int,
    labels: np.ndarray,
    class_of_label: dict[int, int],
    dataset: DatasetSource,
) -> None:
    """A UserError unless each class has images `first` to `last` - 1."""
    for label in class_of_label:
        number_of_images = int(np.count_nonzero(labels == label))
        if not 0 <= first < last <= number_of_images:
            raise UserError(
                f"{dataset}: class {label} has {number_of_images} images, so there are none from "
                f"{first} to {last}; correct first and last in its settings."
            )
