"""Which images train, which select and which test, and nested subsets: functions of source ids alone.

A source image is in the same part in every dataset made from it (ImageNet-Cartoon, -Drawing and -C are made from the
validation images), so what is tested was never trained on in another guise.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np

from rib.data.prepared import PreparedDataset
from rib.io import UserError
from rib.runs import ALL

TRAIN, SELECT, TEST = PARTS = ("train", "select", "test")


def part_of(source_id: str, shares: Mapping[str, float]) -> str:
    """The part that a source image belongs to.

    Args:
        source_id: of the image.
        shares: of `train` and `select` among all source images, adding up to less than 1; the rest tests.
    """
    place = _hash("part", source_id)
    if place < shares[TRAIN]:
        return TRAIN
    return SELECT if place < shares[TRAIN] + shares[SELECT] else TEST


def part(dataset: PreparedDataset, which: str, shares: Mapping[str, float] | None) -> PreparedDataset:
    """One part of a dataset; the whole where there are no shares (protocol `paper`).

    Raises:
        UserError: the training part lacks a class that the dataset has, or the part is empty.
    """
    if shares is None:
        return dataset
    found = dataset.take(np.array([i for i, s in enumerate(dataset.source_ids) if part_of(s, shares) == which], int))
    lost = set(dataset.labels) - set(found.labels)
    if not len(found.labels) or (which == TRAIN and lost):
        what = f"class '{dataset.space.names[min(lost)]}' has" if len(found.labels) else "it has"
        raise UserError(
            f"protocol held_out: {dataset.name}: {what} no image in the {which} part, since there are too few images "
            "per class to split; use protocol paper for this family, or change split in config.yaml."
        )
    return found


def subset(dataset: PreparedDataset, size: str) -> PreparedDataset:
    """The first images in a fixed class-balanced order, so that smaller subsets lie inside larger ones.

    Args:
        dataset: to choose from.
        size: `all`, a number of images, or a fraction of them (with a point: 0.5).

    Raises:
        UserError: it has fewer images, or the fraction is less than one image.
    """
    if size == ALL:
        return dataset
    n = len(dataset.labels)
    wanted = round(float(size) * n) if "." in size else int(size)
    if not 1 <= wanted <= n:
        raise UserError(
            f"downstream_size {size}: {dataset.name} has {n} images to train on; give 1 to {n}, or a fraction below 1."
        )
    return dataset.take(np.sort(balanced_order(dataset.labels, dataset.source_ids)[:wanted]))


def balanced_order(labels: np.ndarray, source_ids: Sequence[str]) -> np.ndarray:
    """Places of images in an order that takes one image of every class before a second of any.

    Returns:
        (n,) int64, a permutation that depends on labels and source ids only.
    """
    hashes = np.array([_hash("order", source) for source in source_ids])
    ranks = np.empty(len(labels), int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members[np.argsort(hashes[members], kind="stable")]] = np.arange(len(members))
    return np.lexsort((hashes, ranks))


def _hash(purpose: str, source_id: str) -> float:
    """A number in 0..1 that looks random and is the same everywhere."""
    return int.from_bytes(sha256(f"{purpose}\0{source_id}".encode()).digest()[:8], "big") / 2**64
