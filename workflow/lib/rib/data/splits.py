"""Which images stand for pretraining, train, select and test, and nested subsets: functions of labels and source ids.

A source image is in the same part in every dataset made from it (ImageNet-Cartoon, -Drawing and -C are made from the
validation images), so what is tested was never trained on in another guise.

Datasets that share sources are split one after the other, in the catalogue's order. What an earlier one has split stays as
it is; the other sources are given out so that each class of the dataset at hand, and the dataset, come as near as they can
to the shares that were asked for. A dataset that is added behind the others therefore changes no split of theirs, and each
of several datasets with the same sources is split as it would be alone. The price is paid by a dataset that has only some
of an earlier one's sources of a class: it takes their parts over as they fall.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rib.data.prepared import PreparedDataset
from rib.geometry import Geometry
from rib.io import UserError
from rib.runs import ALL, images_of

TRAIN, SELECT, TEST = PARTS = ("train", "select", "test")
SEATED = (TRAIN, TEST, SELECT)  # columns of counts; of parts that lack equally much, the first gets the image
FINEST = 10_000  # denominator of a share, at most


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


def reference_images(folder: Path, images: Mapping, split: Path | None) -> PreparedDataset:
    """Images that stand for what pretraining saw.

    Args:
        folder: what a prepare job wrote.
        images: geometry, workers, budget, images_per_class: so many of a dataset that is evaluated; None for all of one
            that is kept for this, or, of a model that was pretrained on a part of it, for that part: `pretraining_size`.
        split: of a dataset kept for this (protocol `held_out`): its train part is taken, since others may share its sources.
    """
    if not images["images_per_class"]:
        size = images.get("pretraining_size", ALL)
        return part(pretraining_images(folder, "reference", images, size), TRAIN, split)
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


def write_split(
    *,
    folder: Path,
    name: str,
    images: Mapping,
    apart: Path | None,
    shares: Mapping[str, float],
    earlier: Iterable[Path],
    table: Path,
) -> None:
    """Split a dataset's source images, as runs see it, and write the part of each.

    Args:
        folder, name, images, apart: see `opened`.
        shares: of `train` and `select` among the source images, adding up to less than 1; the rest tests.
        earlier: splits of the datasets before it that share its sources, in their order.
        table: written as Parquet, a row per source image, by its id: source_id, part, images (of the dataset).
    """
    dataset = opened(folder, name, images, apart)
    places, sources = dataset.sources
    first = np.full(len(sources), np.iinfo(np.int64).max)
    np.minimum.at(first, places, dataset.labels)
    known = {source: which for path in earlier for source, which in read_split(path).items()}
    found = parts_of(dict(zip(sources, first.tolist(), strict=True)), shares, known)
    counts = dict(zip(sources, np.bincount(places, minlength=len(sources)).tolist(), strict=True))
    ids = sorted(found)
    columns = {"source_id": ids, "part": [found[name] for name in ids], "images": [counts[name] for name in ids]}
    pq.write_table(pa.table(columns), table)


def read_split(path: Path) -> dict[str, str]:
    """The part of each source image, as `write_split` wrote it."""
    table = pq.read_table(path, columns=["source_id", "part"]).to_pydict()
    return dict(zip(table["source_id"], table["part"], strict=True))


def parts_of(labels: Mapping[str, int], shares: Mapping[str, float], known: Mapping[str, str]) -> dict[str, str]:
    """The part of each source image of a dataset, stratified by class; the order of `labels` says nothing.

    Of n sources of a class each part gets its share of n, rounded up or down, and of all sources of the dataset likewise. A
    class of one source trains, unless training's share is smaller than another. Two things can be in the way:

    - Parts that are known stay. What is not known makes up for them as far as it goes. Where nothing is left to give out (the
      dataset has so few of an earlier one's n sources of a class) the parts are a random draw of theirs: a part of share s
      has s * few on average, and misses it by sqrt(few * s * (1 - s) * (n - few) / (n - 1)) typically. So it is for the
      dataset's totals, too. A budget takes sources in the order in which parts alternate, and misses by about one.
    - A source of which the dataset has several images takes them all along, so that images are off by as many as a source
      has where sources are off by one.

    Args:
        labels: class by source id; of a source in several classes, one of them.
        shares: see `write_split`.
        known: parts of sources that other datasets share.
    """
    by_class: dict[int, list[str]] = {}
    for source in sorted(labels, key=lambda source: (_hash("order", source), source)):
        by_class.setdefault(labels[source], []).append(source)
    classes = [by_class[label] for label in sorted(by_class)]
    fixed = np.array([[sum(known.get(source) == name for source in own) for name in SEATED] for own in classes])
    counts = seats(np.array([len(own) for own in classes]), shares, fixed)
    found = {source: known[source] for source in labels if source in known}
    for own, given in zip(classes, counts - fixed, strict=True):
        places = sorted(((2 * i + 1) / n, SEATED[part]) for part, n in enumerate(given) for i in range(n))
        free = (source for source in own if source not in known)
        found |= {source: name for source, (_, name) in zip(free, places, strict=True)}
    return found


def seats(sizes: np.ndarray, shares: Mapping[str, float], fixed: np.ndarray) -> np.ndarray:
    """How many sources of each class each part gets: largest remainders per class, then exchanged until totals fit.

    This is a rounding of a table that keeps each row's sum and rounds entries and columns' sums up or down, which is always
    possible where nothing is fixed (Bacharach 1966, doi 10.1287/mnsc.12.9.732); no exchange takes a class's last training
    image.

    Args:
        sizes: (classes,) sources of each.
        shares: see `write_split`.
        fixed: (classes, 3) of `SEATED`, sources whose part is known.

    Returns:
        (classes, 3) int64, not below `fixed`, with rows that add up to `sizes`.
    """
    train, select = (Fraction(shares[name]).limit_denominator(FINEST) for name in (TRAIN, SELECT))
    one = math.lcm(train.denominator, select.denominator)  # whole numbers, since rounding would decide between equals
    asked = [int(share * one) for share in (train, 1 - train - select, select)]
    quota, counts = sizes[:, None] * asked, fixed.astype(np.int64)
    while (lacking := np.flatnonzero(counts.sum(axis=1) < sizes)).size:
        counts[lacking, (quota - one * counts)[lacking].argmax(axis=1)] += 1
    least = np.maximum(fixed, [1, 0, 0])
    while moves := _exchange(one * counts - quota, counts > least, one):
        for row, giver, taker in moves:
            counts[row, [giver, taker]] += [-1, 1]
    return counts


def _exchange(excess: np.ndarray, may_give: np.ndarray, one: int) -> list[tuple[int, int, int]]:
    """Moves of one image each (class, from, to) that bring totals nearer; none where they fit or nothing can be moved.

    Args:
        excess: (classes, 3) what each entry has more than its quota, in units of which an image has `one`.
        may_give: (classes, 3) bool.
        one: an image.
    """
    total = excess.sum(axis=0)
    if (np.abs(total) < one).all():
        return []
    for giver, taker in sorted(itertools.permutations(range(3), 2), key=lambda pair: total[pair[1]] - total[pair[0]]):
        third = 3 - giver - taker
        for steps in ([(giver, taker)], [(giver, third), (third, taker)]) if total[giver] - total[taker] > one else []:
            fit = [may_give[:, a] & (excess[:, a] > 0) & (excess[:, b] < 0) for a, b in steps]
            if all(rows.any() for rows in fit):
                gains = (
                    np.where(rows, excess[:, a] - excess[:, b], -1) for rows, (a, b) in zip(fit, steps, strict=True)
                )
                return [(int(gain.argmax()), *step) for gain, step in zip(gains, steps, strict=True)]
    return []


def part(dataset: PreparedDataset, which: str, split: Path | None) -> PreparedDataset:
    """One part of a dataset; the whole where there is no split (protocol `paper`).

    Raises:
        UserError: the training part lacks a class that the dataset has, or the part is empty.
    """
    if split is None:
        return dataset
    parts = read_split(split)
    found = _where(dataset, lambda source: parts[source] == which)
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
    wanted = images_of(size, n)
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
