"""Nested class-balanced subsets, in an order that depends only on labels, source ids and image ids."""

from hashlib import sha256

import numpy as np

from rib.base.errors import UserError
from rib.config.run import ALL, images_of
from rib.data.prepared import PreparedDataset


def subset(dataset: PreparedDataset, size: str, setting: str = "train_subset") -> PreparedDataset:
    """The first images in a fixed class-balanced order; subsets are nested.

    Args:
        size: `all`, a number of images, or a fraction of them (with a decimal point: 0.5).
        setting: name of the setting, for messages.

    Raises:
        UserError: the dataset has fewer images, or the fraction is less than one image.
    """
    if size == ALL:
        return dataset
    n = len(dataset.labels)
    wanted = images_of(size, n)
    if not 1 <= wanted <= n:
        raise UserError(
            f"{setting} {size}: {dataset.name} has {n} images to train on; set 1 to {n}, or a fraction below 1."
        )
    return first_images(dataset, wanted)


def first_images(dataset: PreparedDataset, limit: int) -> PreparedDataset:
    """At most `limit` images of a dataset, the first in the balanced order; the order of rows is kept."""
    if len(dataset.labels) <= limit:
        return dataset
    return dataset.take(np.sort(balanced_order(dataset)[:limit]))


def held_back(dataset: PreparedDataset, share: float) -> np.ndarray:
    """Mask (n,) of the images of a fraction of each class's source images.

    It is at least one if a class has two or more. A source image of several classes is of the first.
    """
    places, sources = dataset.sources
    classes = np.full(len(sources), np.iinfo(np.int64).max)  # of each source image
    np.minimum.at(classes, places, dataset.labels)
    ranks = rank_within(classes, np.array([hashed("held back", source) for source in sources]))
    sizes = np.bincount(classes)[classes]
    held = ranks < np.where(sizes > 1, np.maximum(1, np.floor(share * sizes)), 0)
    return held[places]


def balanced_order(dataset: PreparedDataset) -> np.ndarray:
    """Order of images that takes one image of every class before a second of any.

    Within a class, one image of each source comes first, then a second of each. The pseudo-random order of the sources
    is the same in all datasets made from them. A source's images are also in pseudo-random order (ImageNet-C has 75 of
    each). The permutation, (n,) int64, depends only on labels, source ids and image ids.
    """
    places, sources = dataset.sources
    by_source = np.array([hashed("order", source) for source in sources])[places]
    by_image = by_source
    if len(sources) < len(places):
        by_image = np.array(
            [hashed("order", image) for image in dataset.index["image_id"].to_pylist()]
        )
    turn = rank_within(dataset.labels, by_source, rank_within(places, by_image))
    return np.lexsort((by_source, turn))


def rank_within(groups: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Rank of each element within its group, the last key being the primary one: (n,) int64."""
    order = np.lexsort((*keys, groups))
    ordered = groups[order]
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(
        ordered, ordered
    )  # the place of each group's first
    return ranks


def hashed(purpose: str, source_id: str) -> float:
    """A pseudo-random number in 0..1, the same on every machine."""
    return int.from_bytes(sha256(f"{purpose}\0{source_id}".encode()).digest()[:8], "big") / 2**64
