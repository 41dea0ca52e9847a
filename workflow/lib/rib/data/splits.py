"""Train, select and test split of source images under protocol held_out.

A source image has the same split in every dataset made from it (ImageNet-Cartoon, -Drawing and -C
are made from the validation images): no test image is trained on in another rendition. Datasets
that share sources are split in catalogue order. Each source keeps the split from an earlier
dataset; the others are assigned as close as possible to the requested fractions. Adding a dataset
at the end never changes earlier splits, and datasets with the same sources are split as they would
be alone.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from rib.data.subsets import hashed

TRAIN = "train"
SELECT = "select"
TEST = "test"
LEFT_OUT = "left_out"  # source images whose images have different splits in other datasets
# Columns of counts; of equally underfilled splits, the first gets the next image.
SPLITS = (TRAIN, TEST, SELECT)
FINEST = 10_000  # largest denominator of a fraction


def read_split(path: Path) -> dict[str, str]:
    """The split of each source image, such as `{"digits/0001": "train"}`.

    Args:
        path: Parquet file written by rib.data.split_dataset.
    """
    table = pq.read_table(path, columns=["source_id", "part"]).to_pydict()
    return dict(zip(table["source_id"], table["part"], strict=True))


def assign_splits(
    labels: Mapping[str, int], fractions: Mapping[str, float], inherited: Mapping[str, str]
) -> dict[str, str]:
    """The split of each source image of a dataset, stratified by class.

    Each split gets its fraction of a class's n sources, rounded up or down, and likewise of all
    sources. A class with one source is in train, unless another split has a larger fraction. Two
    exceptions:

    - Inherited splits are kept, and the other sources compensate as far as possible. If none is
      left to assign, because the dataset has only m of an earlier dataset's n sources of a class,
      the splits are a random draw: a split of fraction s has m * s sources on average, with
      standard deviation sqrt(m * s * (1 - s) * (n - m) / (n - 1)); likewise the totals. With a
      budget, the splits are off by about one.
    - All images of a source are in one split, so an error of one source is an error of as many
      images as it has.

    Args:
        labels: a class of each source, such as `{"digits/0001": 7}`, in any order.
        fractions: such as `{"train": 0.6, "select": 0.2}`; the rest is test.
        inherited: splits of sources shared with earlier datasets, such as `{"digits/0001":
            "train"}`.
    """
    sources_of_classes = _shuffled_sources_of_classes(labels)
    # Number of sources of each class, in total (classes,) and in each split (classes, 3).
    sizes = np.array([len(sources) for sources in sources_of_classes])
    inherited_counts = np.array(
        [_count_inherited(sources, inherited) for sources in sources_of_classes]
    )
    counts = apportion(sizes, fractions, inherited_counts)
    counts_to_assign = counts - inherited_counts
    # Choose the sources.
    split_of_source = {source: inherited[source] for source in labels if source in inherited}
    for sources, counts_of_class in zip(sources_of_classes, counts_to_assign, strict=True):
        sources_without_split = [source for source in sources if source not in inherited]
        splits = _alternating_splits(counts_of_class)
        split_of_source.update(zip(sources_without_split, splits, strict=True))
    return split_of_source


def assign_whole_objects(
    object_of_source: Mapping[str, str],
    fractions: Mapping[str, float],
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """The split of each source image, if no object's images may be divided.

    Objects, such as authors or patients, come in an order that hashes of their names decide. Each
    goes to the split that lacks most of its fraction of all sources. Classes are not balanced. An
    object with an inherited split keeps it; if its sources have several, the others are left out.

    Args:
        object_of_source: such as `{"photos/7": "photos/ann"}`, in any order.
        fractions: such as `{"train": 0.6, "select": 0.2}`; the rest is test.
        inherited: splits of sources shared with earlier datasets.
    """
    sources_of_object: dict[str, list[str]] = {}
    for source, its_object in object_of_source.items():
        sources_of_object.setdefault(its_object, []).append(source)
    objects = sorted(sources_of_object)
    hashes_and_objects = sorted(zip(hashed("order", objects), objects, strict=True))
    shares = {**fractions, TEST: 1 - sum(fractions.values())}
    quotas = [round(FINEST * shares[split]) * len(object_of_source) for split in SPLITS]
    counts = _count_inherited(list(object_of_source), inherited)
    split_of_source = {
        source: inherited[source] for source in object_of_source if source in inherited
    }
    for _, name in hashes_and_objects:
        sources = sources_of_object[name]
        earlier_splits = {inherited[source] for source in sources if source in inherited}
        new_sources = [source for source in sources if source not in inherited]
        if len(earlier_splits) > 1:
            split = LEFT_OUT
        elif earlier_splits:
            (split,) = earlier_splits
        else:
            # Counts times FINEST have the unit of quotas, whole numbers.
            lacking = [quota - FINEST * count for quota, count in zip(quotas, counts, strict=True)]
            split = SPLITS[lacking.index(max(lacking))]
        if split != LEFT_OUT:
            counts[SPLITS.index(split)] += len(new_sources)
        split_of_source.update(dict.fromkeys(new_sources, split))
    return split_of_source


def _shuffled_sources_of_classes(labels: Mapping[str, int]) -> list[list[str]]:
    """Source ids by class, such as [["a/2", "a/1"], ["a/3"]], sorted by hash as for budgets."""
    sources_of_label: dict[int, list[str]] = {}
    for source, label in labels.items():
        sources_of_label.setdefault(label, []).append(source)
    sources_of_classes = []
    for label in sorted(sources_of_label):
        sources = sources_of_label[label]
        hashes_and_sources = sorted(zip(hashed("order", sources), sources, strict=True))
        sources_of_classes.append([source for _, source in hashes_and_sources])
    return sources_of_classes


def _count_inherited(sources: Sequence[str], inherited: Mapping[str, str]) -> list[int]:
    """Number of sources with an inherited split, for each of `SPLITS`: [3, 1, 0]."""
    inherited_splits = [inherited[source] for source in sources if source in inherited]
    return [inherited_splits.count(split) for split in SPLITS]


def _alternating_splits(counts: np.ndarray) -> list[str]:
    """Counts of 2 train, 1 test and 0 select give ["train", "test", "train"].

    A budget takes the first sources, which thus have all splits.
    """
    places_and_splits = []
    for split, count in zip(SPLITS, counts.tolist(), strict=True):
        for i in range(count):
            place = (2 * i + 1) / count  # middle of the i-th of `count` equal pieces of 0 to 2
            places_and_splits.append((place, split))
    return [split for _, split in sorted(places_and_splits)]


def apportion(sizes: np.ndarray, fractions: Mapping[str, float], fixed: np.ndarray) -> np.ndarray:
    """Number of sources of each class in each split.

    Largest remainders per class, then exchanges until totals fit. This is controlled rounding of a
    table: row sums are kept, entries and column sums are rounded up or down. If nothing is fixed, a
    solution always exists (Bacharach 1966, doi 10.1287/mnsc.12.9.732). No exchange takes a class's
    last training image.

    Args:
        sizes: (classes,) number of sources.
        fractions: such as `{"train": 0.6, "select": 0.2}`; the rest is test.
        fixed: (classes, 3) number of sources with an inherited split, columns as in `SPLITS`.

    Returns:
        (classes, 3) int64, at least `fixed`, with row sums `sizes`. With the fractions above and
            nothing fixed, sizes 10 and 5 give [[6, 2, 2], [3, 1, 1]].
    """
    train = Fraction(fractions[TRAIN]).limit_denominator(FINEST)
    select = Fraction(fractions[SELECT]).limit_denominator(FINEST)
    test = 1 - train - select
    # Rounding errors would break ties, so count sources in a unit in which all numbers are
    # integers. A quota is the exact number of a class's sources for a split.
    units = math.lcm(train.denominator, select.denominator)  # units of one source
    quota_of_one_source = [int(fraction * units) for fraction in (train, test, select)]
    quotas = sizes[:, np.newaxis] * quota_of_one_source
    counts = _fill_classes(sizes, quotas, fixed, units)
    minimum = np.maximum(fixed, [1, 0, 0])
    while moves := _find_exchange(units * counts - quotas, counts > minimum, units):
        for move in moves:
            counts[move.class_row, move.giver] -= 1
            counts[move.class_row, move.taker] += 1
    return counts


def _fill_classes(
    sizes: np.ndarray, quotas: np.ndarray, fixed: np.ndarray, units: int
) -> np.ndarray:
    """(classes, 3) counts: the split that lacks most of its quota gets a class's next source.

    Quotas are sources times `units`: 2.5 sources are 25 if `units` is 10.
    """
    counts = fixed.astype(np.int64)
    while True:
        incomplete_classes = np.flatnonzero(counts.sum(axis=1) < sizes)
        if len(incomplete_classes) == 0:
            return counts
        lacking = (quotas - units * counts)[incomplete_classes]
        split_that_lacks_most = lacking.argmax(axis=1)
        counts[incomplete_classes, split_that_lacks_most] += 1


class Move(NamedTuple):
    """One source of a class moves between splits (columns of counts)."""

    class_row: int
    giver: int
    taker: int


def _find_exchange(excess: np.ndarray, may_give: np.ndarray, units: int) -> list[Move]:
    """One or two moves that bring the splits' totals closer to their quotas; [] if none does."""
    # `excess`, (classes, 3), is positive where a split has more than its quota, in units.
    total = excess.sum(axis=0)  # of each split, in units
    if (np.abs(total) < units).all():
        return []

    def excess_of_taker(pair: tuple[int, int]) -> int:
        giver, taker = pair
        return int(total[taker] - total[giver])

    # The splits are 0, 1 and 2. Pairs that differ most come first.
    pairs = sorted(itertools.permutations(range(3), 2), key=excess_of_taker)
    for giver, taker in pairs:
        if total[giver] - total[taker] <= units:
            continue
        third = 3 - giver - taker  # the remaining split
        direct = _best_move(excess, may_give, giver, taker)
        if direct is not None:
            return [direct]
        # No class allows a direct move, so go through the third split.
        to_third = _best_move(excess, may_give, giver, third)
        from_third = _best_move(excess, may_give, third, taker)
        if to_third is not None and from_third is not None:
            return [to_third, from_third]
    return []


def _best_move(excess: np.ndarray, may_give: np.ndarray, giver: int, taker: int) -> Move | None:
    """The move from giver to taker in the class where it helps most; None if it helps in none."""
    has_too_many = excess[:, giver] > 0
    has_too_few = excess[:, taker] < 0
    allows = may_give[:, giver] & has_too_many & has_too_few  # (classes,)
    if not allows.any():
        return None
    corrections = np.where(allows, excess[:, giver] - excess[:, taker], -1)
    best_class = int(corrections.argmax())
    return Move(best_class, giver, taker)
