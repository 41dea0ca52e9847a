"""Which images stand for pretraining, train, select and test, and nested subsets: functions of labels and source ids.

A source image is in the same part in every dataset made from it (ImageNet-Cartoon, -Drawing and -C are made from the
validation images), so what is tested was never trained on in another guise.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rib.data.prepared import PreparedDataset
from rib.geometry import Geometry
from rib.io import UserError
from rib.runs import ALL

TRAIN, SELECT, TEST = PARTS = ("train", "select", "test")


def opened(folder: Path, name: str, images: Mapping, apart: Path | None = None) -> PreparedDataset:
    """A dataset as a run sees it: without what stands for pretraining, within the budget.

    Args:
        folder: what a prepare job wrote.
        name: the dataset.
        images: geometry, workers, budget, images_per_class (of the part that stands for pretraining).
        apart: folder of the dataset of which a part stands for pretraining, where this one shares its sources.

    Raises:
        UserError: nothing is left, or nothing is left out that should be.
    """
    dataset = PreparedDataset.open(folder, name, Geometry(**images["geometry"]), images["workers"])
    if apart:
        kept_apart = _reference_sources(apart / "index.parquet", images["images_per_class"])
        whole = len(dataset.labels)
        dataset = _where(dataset, lambda source: source not in kept_apart)
        if len(dataset.labels) == whole:
            raise UserError(
                f"{name}: none of its images was made from one that stands for pretraining, though its entry's source_group "
                "says so; its files are named otherwise than the source images, so correct its layout."
            )
        if not len(dataset.labels):
            raise UserError(
                f"{name}: all its images stand for pretraining; lower reference.images_per_class in the family's entry."
            )
    return dataset if images["budget"] == ALL else dataset.take(_first(dataset, images["budget"]))


def reference_images(folder: Path, images: Mapping, shares: Mapping[str, float] | None) -> PreparedDataset:
    """Images that stand for what pretraining saw.

    Args:
        folder: what a prepare job wrote.
        images: geometry, workers, budget, images_per_class: so many of a dataset that is evaluated; None for all of one
            that is kept for this, or, of a model that was pretrained on a part of it, for that part: `pretraining_size`.
        shares: of the splits (protocol `held_out`): of a dataset kept for this the train part is taken, since others
            may share its sources.
    """
    if not images["images_per_class"]:
        size = images.get("pretraining_size", ALL)
        return part(pretraining_images(folder, "reference", images, size), TRAIN, shares)
    dataset = PreparedDataset.open(folder, "reference", Geometry(**images["geometry"]), images["workers"])
    chosen = _reference_sources(folder / "index.parquet", images["images_per_class"])
    return _where(dataset, lambda source: source in chosen)


def pretraining_images(folder: Path, name: str, images: Mapping, size: str) -> PreparedDataset:
    """Images that a model is pretrained on here; smaller parts lie inside larger ones.

    Args:
        folder: what a prepare job wrote.
        name: the dataset.
        images: geometry, workers, budget.
        size: see `subset`.
    """
    return subset(opened(folder, name, images), size, "pretrain.size")


def _reference_sources(index: Path, images_per_class: int) -> frozenset[str]:
    """Source images of the part that stands for pretraining: of each class those whose hashes are lowest."""
    table = pq.read_table(index, columns=["label", "source_id"]).to_pydict()
    by_class: dict[int, set[str]] = {}
    for label, source in zip(table["label"], table["source_id"], strict=True):
        by_class.setdefault(label, set()).add(source)
    ranked = (sorted(sources, key=lambda source: _hash("reference", source)) for sources in by_class.values())
    return frozenset(source for sources in ranked for source in sources[:images_per_class])


def _where(dataset: PreparedDataset, holds: Callable[[str], bool]) -> PreparedDataset:
    """The images of whose source something holds."""
    places, sources = dataset.sources
    return dataset.take(np.flatnonzero(np.array([holds(source) for source in sources], bool)[places]))


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
    found = _where(dataset, lambda source: part_of(source, shares) == which)
    lost = set(dataset.labels) - set(found.labels)
    if not len(found.labels) or (which == TRAIN and lost):
        what = f"class '{dataset.space.names[min(lost)]}' has" if len(found.labels) else "it has"
        raise UserError(
            f"protocol held_out: {dataset.name}: {what} no image in the {which} part, since there are too few images "
            "per class to split; use protocol paper for this family, or change split or budget in config.yaml."
        )
    return found


def subset(dataset: PreparedDataset, size: str, setting: str = "downstream_size") -> PreparedDataset:
    """The first images in a fixed class-balanced order, so that smaller subsets lie inside larger ones.

    Args:
        dataset: to choose from.
        size: `all`, a number of images, or a fraction of them (with a point: 0.5).
        setting: what says so, for messages.

    Raises:
        UserError: it has fewer images, or the fraction is less than one image.
    """
    if size == ALL:
        return dataset
    n = len(dataset.labels)
    wanted = round(float(size) * n) if "." in size else int(size)
    if not 1 <= wanted <= n:
        raise UserError(
            f"{setting} {size}: {dataset.name} has {n} images to train on; give 1 to {n}, or a fraction below 1."
        )
    return dataset.take(_first(dataset, wanted))


def held_back(dataset: PreparedDataset, share: float) -> np.ndarray:
    """Places, as (n,) bool, of a share of every class's images, by source: one at least where a class has two or more."""
    places, sources = dataset.sources
    ranks = _rank_within(dataset.labels, np.array([_hash("held back", source) for source in sources])[places])
    sizes = np.bincount(dataset.labels)[dataset.labels]
    return ranks < np.where(sizes > 1, np.maximum(1, np.floor(share * sizes)), 0)


def _first(dataset: PreparedDataset, wanted: int) -> np.ndarray:
    """Places, sorted, of the first images in the balanced order."""
    return np.sort(balanced_order(dataset)[:wanted])


def balanced_order(dataset: PreparedDataset) -> np.ndarray:
    """Places of images in an order that takes one image of every class before a second of any.

    Within a class come first one image of each source, in an order of the sources that all datasets made from them
    share, then a second of each. Which of a source's images is first is as random (ImageNet-C has 75 of each).

    Returns:
        (n,) int64, a permutation that depends on labels, source ids and image ids only.
    """
    places, sources = dataset.sources
    by_source = np.array([_hash("order", source) for source in sources])[places]
    by_image = by_source
    if len(sources) < len(places):
        ids = dataset.index["image_id"].to_pylist()
        by_image = np.array([_hash("order", image) for image in ids])
    variant = _rank_within(places, by_image)
    turn = _rank_within(dataset.labels, by_source, variant)
    return np.lexsort((by_source, turn))


def _rank_within(groups: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Rank of each element within its group, by keys of which the last counts most: (n,) int64."""
    order = np.lexsort((*keys, groups))
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return ranks


def _hash(purpose: str, source_id: str) -> float:
    """A number in 0..1 that looks random and is the same everywhere."""
    return int.from_bytes(sha256(f"{purpose}\0{source_id}".encode()).digest()[:8], "big") / 2**64
