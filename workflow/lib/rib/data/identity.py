"""Identical photos, which are one source image whatever their files are called.

The identity of a photo is a digest of its decoded pixels before they are resized, so it depends on
no file format. It is the column `PHOTO` of an index. An index that was made before there was this
column has photos of unknown identity, which are never identical to others.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from rib.base.errors import UserError
from rib.base.progress import log

PHOTO = "photo_sha256"  # column of an index
AGAIN = "`snakemake --forcerun prepare` notes them"
STRIP = 1 << 20  # pixels that are hashed at once, to bound the memory


def identity_of(picture: Image.Image | np.ndarray) -> str:
    """SHA-256 of a picture's size and pixels as RGB, in hexadecimal.

    Args:
        picture: a decoded photo, or a drawing, (height, width) or (height, width, 3) uint8.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image = image.convert("RGB")
    digest = hashlib.sha256(f"RGB {image.width} x {image.height}\n".encode())
    lines = max(1, STRIP // image.width)
    for top in range(0, image.height, lines):
        bottom = min(top + lines, image.height)
        digest.update(image.crop((0, top, image.width, bottom)).tobytes())
    return digest.hexdigest()


def read_identities(index: Path, required: bool = False) -> pa.Array:
    """The identity of each image of an index: (n,) text, null if it is unknown.

    Raises:
        UserError: they are required, but the index was made before they were noted.
    """
    if PHOTO in pq.read_schema(index).names:
        return pq.read_table(index, columns=[PHOTO])[PHOTO].combine_chunks().cast(pa.string())
    what = f"{index} was prepared by an earlier version, which did not note identical photos"
    if required:
        raise UserError(f"{what}; {AGAIN}.")
    log.warning("%s, so they count as different ones; %s", what, AGAIN)
    return pa.nulls(pq.read_metadata(index).num_rows, pa.string())


def joined_ids(ids: pa.Array | pa.ChunkedArray, identities: pa.Array) -> dict[str, str]:
    """Ids of images that are identical to images of other ids, directly or through others.

    Args:
        ids: (n,) text, such as the source id of each image; images of one id belong together.
        identities: (n,) text or null, the identity of each image.

    Returns:
        The first id, in the order of text, by each other id that belongs together with it; empty
        if there are none.
    """
    repeated = pa.array(np.flatnonzero(identical_images(identities)))
    names = ids.take(repeated).to_pylist()
    photos = identities.take(repeated).to_pylist()
    parents: dict[str, str] = {}  # a forest: a root is the first id of those that belong together

    def root_of(name: str) -> str:
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    first_with: dict[str, str] = {}
    for name, photo in zip(names, photos, strict=True):
        parents.setdefault(name, name)
        one, other = root_of(name), root_of(first_with.setdefault(photo, name))
        parents[max(one, other)] = min(one, other)
    return {name: root for name in parents if (root := root_of(name)) != name}


def identical_images(identities: pa.Array) -> np.ndarray:
    """Which images are identical to another one: (n,) bool."""
    photos = _numbered(identities)
    known = photos >= 0
    images_of_photo = np.bincount(photos[known])
    identical = np.zeros(len(photos), bool)
    identical[known] = images_of_photo[photos[known]] > 1
    return identical


def of_other_classes(identities: pa.Array, labels: np.ndarray) -> np.ndarray:
    """Which images are identical to one of another class: (n,) bool; `labels` are (n,) integers."""
    photos = _numbered(identities)
    known = photos >= 0
    number = photos.max(initial=-1) + 1
    lowest = np.full(number, np.iinfo(np.int64).max)
    highest = np.full(number, -1)
    np.minimum.at(lowest, photos[known], labels[known])
    np.maximum.at(highest, photos[known], labels[known])
    conflicting = np.zeros(len(photos), bool)
    conflicting[known] = (lowest < highest)[photos[known]]
    return conflicting


def identical_to(identities: pa.Array, others: pa.Array) -> np.ndarray:
    """Which photos are identical to one of others: (n,) bool."""
    return pc.is_in(identities, value_set=others, skip_nulls=True).to_numpy(zero_copy_only=False)


def _numbered(identities: pa.Array) -> np.ndarray:
    """A number from 0 of each image's photo, the same for identical ones: (n,) int64.

    It is -1 if the identity is unknown.
    """
    return identities.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
