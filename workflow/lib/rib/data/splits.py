"""Train, select and test split of source images under protocol held_out, a function of labels and source ids.

A source image is in the same split in every dataset made from it (ImageNet-Cartoon, -Drawing and -C are made from the
validation images), so no test image was trained on in another rendition. Datasets that share sources are split one
after the other, in catalogue order; each source keeps the split that an earlier dataset gave it, and the others are
assigned as close as possible to the requested fractions. Identical photos are one source image, whatever their datasets
and ids. Adding a dataset at the end never changes earlier splits, and
datasets with the same sources are split as they would be alone; one with only some of an earlier dataset's sources of a
class inherits whatever splits those have.
"""

import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rib.data.subsets import hashed

TRAIN, SELECT, TEST = "train", "select", "test"
LEFT_OUT = "left_out"  # of a source image whose images other datasets have in different splits
SEATED = (
    TRAIN,
    TEST,
    SELECT,
)  # columns of counts; the first of equally underfilled splits gets the next image
FINEST = 10_000  # largest denominator of a fraction


def read_split(path: Path) -> dict[str, str]:
    """The split of each source image, as written by rib.data.split_dataset."""
    table = pq.read_table(path, columns=["source_id", "part"]).to_pydict()
    return dict(zip(table["source_id"], table["part"], strict=True))


def parts_of(
    labels: Mapping[str, int], fractions: Mapping[str, float], known: Mapping[str, str]
) -> dict[str, str]:
    """The split of each source image of a dataset, stratified by class; the order of `labels` doesn't matter.

    Each split gets its fraction of a class's n sources, rounded up or down, and likewise of all sources of the dataset.
    A class with one source is in train, unless another split has a larger fraction. There are two exceptions:

    - Known splits are kept, and the other sources compensate as far as possible. If none is left to assign, because the
      dataset has only m of an earlier dataset's n sources of a class, the splits are a random draw: a split of fraction
      s has m * s sources on average, with standard deviation sqrt(m * s * (1 - s) * (n - m) / (n - 1)). The same holds
      for the totals. A budget takes sources in an order in which the splits alternate, and is off by about one.
    - All images of a source are in one split, so an error of one source is an error of as many images as it has.

    Args:
        labels: class by source id; for a source in several classes, one of them.
        known: splits of sources shared with other datasets.
    """
    ordered = sorted(labels, key=lambda source: (labels[source], hashed("order", source), source))
    classes = [list(own) for _, own in itertools.groupby(ordered, key=labels.get)]
    fixed = np.array(
        [[sum(known.get(source) == name for source in own) for name in SEATED] for own in classes]
    )
    counts = seats(np.array([len(own) for own in classes]), fractions, fixed)
    found = {source: known[source] for source in labels if source in known}
    for own, given in zip(classes, counts - fixed, strict=True):
        places = sorted(
            ((2 * i + 1) / n, SEATED[part]) for part, n in enumerate(given) for i in range(n)
        )
        free = (source for source in own if source not in known)
        found |= {source: name for source, (_, name) in zip(free, places, strict=True)}
    return found


def seats(sizes: np.ndarray, fractions: Mapping[str, float], fixed: np.ndarray) -> np.ndarray:
    """Number of sources of each class in each split: largest remainders per class, then exchanges until totals fit.

    This is controlled rounding of a table: row sums are kept, entries and column sums are rounded up or down. A
    solution always exists if nothing is fixed (Bacharach 1966, doi 10.1287/mnsc.12.9.732). No exchange takes a class's
    last training image.

    Args:
        sizes: (classes,) number of sources of each class.
        fixed: (classes, 3) number of sources with a known split, columns as in `SEATED`.

    Returns:
        (classes, 3) int64, at least `fixed`, with row sums `sizes`.
    """
    train, select = (
        Fraction(fractions[name]).limit_denominator(FINEST) for name in (TRAIN, SELECT)
    )
    one = math.lcm(
        train.denominator, select.denominator
    )  # integer arithmetic: rounding errors would break ties
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
    """Moves of one image each (class, from, to) that bring totals closer; empty if they fit or no move is possible.

    Args:
        excess: (classes, 3) entries minus quotas, in units of 1 / `one` images.
        may_give: (classes, 3) bool, entries that may decrease.
        one: units per image.
    """
    total = excess.sum(axis=0)
    if (np.abs(total) < one).all():
        return []
    for giver, taker in sorted(
        itertools.permutations(range(3), 2), key=lambda pair: total[pair[1]] - total[pair[0]]
    ):
        third = 3 - giver - taker
        for steps in (
            ([(giver, taker)], [(giver, third), (third, taker)])
            if total[giver] - total[taker] > one
            else []
        ):
            fit = [
                (may_give[:, a] & (excess[:, a] > 0) & (excess[:, b] < 0), a, b) for a, b in steps
            ]
            if all(rows.any() for rows, *_ in fit):
                return [
                    (int(np.where(rows, excess[:, a] - excess[:, b], -1).argmax()), a, b)
                    for rows, a, b in fit
                ]
    return []
