"""Images with the same pixels, which are one source image whatever their file names.

An image's *identity* is a digest of its decoded pixels before resizing, so it depends on no file
format. Indexes store it in the column `PHOTO`.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

PHOTO = "photo_sha256"  # column of an index
STRIP = 1 << 20  # pixels hashed at once, to bound memory


def identity_of(picture: Image.Image | np.ndarray) -> str:
    """SHA-256 (hex) of a picture's size and pixels as RGB, to find identical pictures.

    Args:
        picture: a decoded image, or a drawing: (height, width[, 3]) uint8.
    """
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    image = picture.convert("RGB")
    digest = hashlib.sha256(f"RGB {image.width} x {image.height}\n".encode())
    rows_of_strip = max(1, STRIP // image.width)
    for top in range(0, image.height, rows_of_strip):
        bottom = min(top + rows_of_strip, image.height)
        strip = image.crop((0, top, image.width, bottom))
        digest.update(strip.tobytes())
    return digest.hexdigest()


def read_identities(index: Path) -> pa.Array:
    """Identity (hash of pixels) of each image, (n,) text.

    Args:
        index: Parquet file, one row per image.
    """
    column = pq.read_table(index, columns=[PHOTO])[PHOTO]
    return column.combine_chunks().cast(pa.string())


def joined_ids(ids: pa.Array | pa.ChunkedArray, identities: pa.Array) -> dict[str, str]:
    """Map every id except the first of its group to that first id.

    Ids are in a group if they share an identical image, directly or through other ids. Linked a, b
    and c give `{"b": "a", "c": "a"}`; ids are ordered as text. A group counts as one original.

    Args:
        ids: (n,) text, such as the source id of each image.
        identities: (n,) text (hash of pixels).
    """
    rows = pa.array(np.flatnonzero(identical_images(identities)))
    ids_of_images = ids.take(rows).to_pylist()
    shared_identities = identities.take(rows).to_pylist()
    groups = _Groups()
    first_id_of_identity: dict[str, str] = {}
    for image_id, identity in zip(ids_of_images, shared_identities, strict=True):
        if identity not in first_id_of_identity:
            first_id_of_identity[identity] = image_id
        groups.join(image_id, first_id_of_identity[identity])
    return groups.first_of_each_other()


class _Groups:
    """Union-find: sets of ids that belong together.

    Each id has a parent in its group; the first id in text order, the root, is its own parent.
    """

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def join(self, one_id: str, other_id: str) -> None:
        """Unite the groups of two ids, which may be new."""
        one_root = self._root_of(one_id)
        other_root = self._root_of(other_id)
        first_root = min(one_root, other_root)
        last_root = max(one_root, other_root)
        self._parents[last_root] = first_root

    def _root_of(self, name: str) -> str:
        """The id that stands for an id's group; a new id is a group of its own."""
        parents = self._parents
        if name not in parents:
            parents[name] = name
        while parents[name] != name:
            grandparent = parents[parents[name]]
            parents[name] = grandparent  # path halving: shortens the way for the next call
            name = grandparent
        return name

    def first_of_each_other(self) -> dict[str, str]:
        """First id of its group for each other id: a group a, b, c gives {"b": "a", "c": "a"}."""
        first_ids = {}
        for name in self._parents:
            root = self._root_of(name)
            if root != name:
                first_ids[name] = root
        return first_ids


def identical_images(identities: pa.Array) -> np.ndarray:
    """Mask of images that are identical to another one: (n,) bool.

    Args:
        identities: (n,) text (hash of pixels).
    """
    identity_number = _number_identities(identities)
    images_of_identity = np.bincount(identity_number)
    is_identical: np.ndarray = images_of_identity[identity_number] > 1
    return is_identical


def of_other_classes(identities: pa.Array, labels: np.ndarray) -> np.ndarray:
    """Mask of images that are identical to an image of another class: (n,) bool.

    Some of their labels are arbitrary.

    Args:
        identities: (n,) text (hash of pixels).
        labels: (n,) integers.
    """
    identity_number = _number_identities(identities)
    number_of_identities = identity_number.max(initial=-1) + 1
    # Labels of the images with each identity.
    lowest_label = np.full(number_of_identities, np.iinfo(np.int64).max)
    highest_label = np.full(number_of_identities, -1)
    np.minimum.at(lowest_label, identity_number, labels)
    np.maximum.at(highest_label, identity_number, labels)
    has_several_labels = lowest_label < highest_label
    is_conflicting: np.ndarray = has_several_labels[identity_number]
    return is_conflicting


def identical_to(identities: pa.Array, others: pa.Array) -> np.ndarray:
    """Mask of images that are identical to any of other images: (n,) bool.

    Args:
        identities: (n,) text (hash of pixels).
        others: identities to look for, such as a pretraining proxy's.
    """
    is_identical = pc.is_in(identities, value_set=others)
    mask: np.ndarray = is_identical.to_numpy(zero_copy_only=False)
    return mask


def _number_identities(identities: pa.Array) -> np.ndarray:
    """(n,) int64, one number per identity: "x", "y", "x" give 0, 1, 0."""
    numbers: np.ndarray = identities.dictionary_encode().indices.to_numpy().astype(np.int64)
    return numbers
