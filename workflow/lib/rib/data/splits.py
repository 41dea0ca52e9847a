"""Train, select and test split of source images under protocol held_out.

It is a function of labels and source ids.

A source image is in the same split in every dataset made from it (ImageNet-Cartoon, -Drawing and -C
are made from the validation images), so no test image was trained on in another rendition. Datasets
that share sources are split one after the other, in catalogue order; each source keeps the split
that an earlier dataset gave it, and the others are assigned as close as possible to the requested
fractions. Identical photos are one source image, whatever their datasets and ids. Adding a dataset
at the end never changes earlier splits, and datasets with the same sources are split as they would
be alone; one with only some of an earlier dataset's sources of a class inherits whatever splits
those have.
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
LEFT_OUT = "left_out"  # of a source image whose images other datasets have in different splits
# Columns of counts; the first of equally underfilled splits gets the next image.
SPLITS = (TRAIN, TEST, SELECT)
FINEST = 10_000  # largest denominator of a fraction


def read_split(path: Path) -> dict[str, str]:
    """The split of each source image by its id, such as {"digits/0001": "train"}.

    Args:
        path: the Parquet file that rib.data.split_dataset writes; its column `part` is the split.
    """
    table = pq.read_table(path, columns=["source_id", "part"]).to_pydict()
    return dict(zip(table["source_id"], table["part"], strict=True))


def assign_splits(
    labels: Mapping[str, int], fractions: Mapping[str, float], inherited: Mapping[str, str]
) -> dict[str, str]:
    """The split of each source image of a dataset, stratified by class.

    Each split gets its fraction of a class's n sources, rounded up or down, and likewise of all
    sources of the dataset. A class with one source is in train, unless another split has a larger
    fraction. There are two exceptions:

    - Inherited splits are kept, and the other sources compensate as far as possible. If none is
      left to assign, because the dataset has only m of an earlier dataset's n sources of a class,
      the splits are a random draw: a split of fraction s has m * s sources on average, with
      standard deviation sqrt(m * s * (1 - s) * (n - m) / (n - 1)). The same holds for the totals. A
      budget takes sources in an order in which the splits alternate, and is off by about one.
    - All images of a source are in one split, so an error of one source is an error of as many
      images as it has.

    Args:
        labels: class by source id; for a source in several classes, one of them. Their order
            doesn't matter.
        fractions: of the splits train and select; the rest is test.
        inherited: splits of sources shared with earlier datasets.
    """
    sources_of_classes = _shuffled_sources_of_classes(labels)
    # How many sources of each class are in each split: (classes,) and twice (classes, 3).
    sizes = np.array([len(sources) for sources in sources_of_classes])
    inherited_counts = np.array(
        [_count_inherited(sources, inherited) for sources in sources_of_classes]
    )
    counts = apportion(sizes, fractions, inherited_counts)
    counts_to_assign = counts - inherited_counts
    # Which ones these are.
    split_of_source = {source: inherited[source] for source in labels if source in inherited}
    for sources, counts_of_class in zip(sources_of_classes, counts_to_assign, strict=True):
        sources_without_split = [source for source in sources if source not in inherited]
        splits = _alternating_splits(counts_of_class)
        split_of_source.update(zip(sources_without_split, splits, strict=True))
    return split_of_source


def _shuffled_sources_of_classes(labels: Mapping[str, int]) -> list[list[str]]:
    """A list of source ids for each class, in the order of labels.

    Within a class, the order is pseudo-random and that of rib.data.subsets.

    Args:
        labels: label of the class by source id.
    """
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
    """How many sources have a split from an earlier dataset: one number for each of `SPLITS`.

    Args:
        sources: source ids, not all of which have such a split.
        inherited: split by source id.
    """
    inherited_splits = [inherited[source] for source in sources if source in inherited]
    return [inherited_splits.count(split) for split in SPLITS]


def _alternating_splits(counts: np.ndarray) -> list[str]:
    """A list of splits in which each occurs as often as its count says, evenly spread over it.

    Args:
        counts: (3,) by `SPLITS`. For example 2 of train, 1 of test and 0 of select give
            ["train", "test", "train"].
    """
    places_and_splits = []
    for split, count in zip(SPLITS, counts.tolist(), strict=True):
        for i in range(count):
            place = (2 * i + 1) / count  # the middle of the i-th of `count` equal pieces of 0 to 2
            places_and_splits.append((place, split))
    return [split for _, split in sorted(places_and_splits)]


def apportion(sizes: np.ndarray, fractions: Mapping[str, float], fixed: np.ndarray) -> np.ndarray:
    """Number of sources of each class in each split.

    First come largest remainders per class, then exchanges until totals fit. This is controlled
    rounding of a table: row sums are kept, entries and column sums are rounded up or down. A
    solution always exists if nothing is fixed (Bacharach 1966, doi 10.1287/mnsc.12.9.732). No
    exchange takes a class's last training image.

    Args:
        sizes: (classes,) number of sources of each class.
        fractions: of the splits train and select; the rest is test.
        fixed: (classes, 3) number of sources with an inherited split, columns as in `SPLITS`.

    Returns:
        (classes, 3) int64, at least `fixed`, with row sums `sizes`.
    """
    train = Fraction(fractions[TRAIN]).limit_denominator(FINEST)
    select = Fraction(fractions[SELECT]).limit_denominator(FINEST)
    test = 1 - train - select
    # Rounding errors would break ties, so sources are counted in a unit in which all numbers are
    # integers. A quota is what a split should have of a class.
    units = math.lcm(train.denominator, select.denominator)  # of one source
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
    """Give the sources of each class, one by one, to the split that lacks most of its quota.

    Args:
        sizes: (classes,) number of sources of each class.
        quotas: (classes, 3) what each split should have of a class, in units.
        fixed: (classes, 3) number of sources that each split has from the beginning.
        units: units of one source.

    Returns:
        (classes, 3) int64, the number of sources of each class in each split.
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
    """One source of a class that goes from a split to another; splits are columns of counts."""

    class_row: int
    giver: int
    taker: int


def _find_exchange(excess: np.ndarray, may_give: np.ndarray, units: int) -> list[Move]:
    """One or two moves after which the totals of the splits are closer to what they should be.

    The list is empty if the totals fit or no move is possible. A split with too many sources gives
    one to a split with too few; if no class allows that, it gives one to the third split, which
    gives one to that split.

    Args:
        excess: (classes, 3) how much more each split has of a class than it should, in units;
            negative if it has less.
        may_give: (classes, 3) bool, whether a split may lose a source of a class.
        units: units of one source.
    """
    total = excess.sum(axis=0)  # of each split
    if (np.abs(total) < units).all():
        return []

    def excess_of_taker(pair: tuple[int, int]) -> int:
        """How much more the second split has than the first; negative if the first has more."""
        giver, taker = pair
        return int(total[taker] - total[giver])

    # The three splits are 0, 1 and 2. Pairs that differ most come first.
    pairs = sorted(itertools.permutations(range(3), 2), key=excess_of_taker)
    for giver, taker in pairs:
        if total[giver] - total[taker] <= units:
            continue
        third = 3 - giver - taker  # the split that is neither
        direct = _best_move(excess, may_give, giver, taker)
        if direct is not None:
            return [direct]
        to_third = _best_move(excess, may_give, giver, third)
        from_third = _best_move(excess, may_give, third, taker)
        if to_third is not None and from_third is not None:
            return [to_third, from_third]
    return []


def _best_move(excess: np.ndarray, may_give: np.ndarray, giver: int, taker: int) -> Move | None:
    """The move between two splits in the class where it corrects most; None if no class allows it.

    A class allows it if the giver has more of it than it should, and the taker less.

    Args:
        excess: (classes, 3) how much more each split has of a class than it should.
        may_give: (classes, 3) bool, whether a split may lose a source of a class.
        giver, taker: columns of these arrays.
    """
    has_too_many = excess[:, giver] > 0
    has_too_few = excess[:, taker] < 0
    allows = may_give[:, giver] & has_too_many & has_too_few  # (classes,)
    if not allows.any():
        return None
    corrections = np.where(allows, excess[:, giver] - excess[:, taker], -1)
    best_class = int(corrections.argmax())
    return Move(best_class, giver, taker)
