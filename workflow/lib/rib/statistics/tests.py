"""Tests of differences, and corrections for several tests.

The sign-flip test is for trained networks that stay fixed, so its only chance is in objects (what
images show). Its null hypothesis is that two units, such as methods, are exchangeable on each
object: the difference of their mRI is a sum over objects (`rib.statistics.ri.ood_parts`), and each
term has a random sign, the same for all targets, datasets and seeds in which the object appears. p
is the fraction of draws with at least the observed absolute difference, counting the observed one
(Phipson and Smyth 2010, doi 10.2202/1544-6115.1585).

Like the test over objects and seeds (`rib.statistics.bootstrap.p_over_runs`), it is liberal if
objects are few and a large gain on rare ones makes up for small losses on the others: with 40
objects, 3 % of them rare, over a fifth of p are at most 0.05 where the mean difference is 0. Tables
therefore state the number of objects with an image in the RI (for mRI, in the RI of any target),
with a note below FEWEST_OBJECTS.

Welch's test (1947, doi 10.2307/2332510), with the degrees of freedom of Satterthwaite (1946, doi
10.2307/3002019), compares two groups of networks that differ in the seed of their pretraining.

Holm's correction (1979, Scandinavian Journal of Statistics 6, 65-70) is over all tests of a family.
"""

import itertools
import string
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import erfc
from scipy.stats import ttest_ind

from rib.base.progress import Progress

DRAWS = 100_000  # random draws of the objects' signs
MANY_OBJECTS = 1000  # from here on, a sum over contributing objects counts as normal
# Memory for signs. From 2 to 16 MB the time hardly changes; blocks of 64 MB, which the system
# allocates anew each time, take twice as long.
BLOCK_BYTES = 1 << 23
FEWEST_OBJECTS = 100  # with fewer, the test is noted to be liberal
# Percentage points: above the rounding error of a sum, below the effect of one image in millions.
ROUNDING = 1e-9


def sign_flip_p(
    contributions: np.ndarray, pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> np.ndarray:
    """Two-sided p of differences between units: the test for fewer than three seeds.

    If two units, such as methods, are exchangeable, each object's contribution to their difference
    has a random sign.

    A pair's sum over objects with contributions x counts as normal if at least 1000 objects
    contribute, counted as (sum x^2)^2 / sum x^4. Its variance is sum x^2, with a continuity
    correction by the largest x, exact for equal x. Other pairs have random signs.

    Args:
        contributions: (units, measures, objects) percentage points.
        pairs: indices of two units each.
        draws: number of sign draws, shared by all pairs and measures.

    Returns:
        (pairs, measures), 0 to 1; p of drawn pairs is at least 1 / (1 + draws).
    """
    measures = contributions.shape[1]
    p = np.ones((len(pairs), measures))
    pairs_to_draw = []  # indices into pairs
    for number, (first, second) in enumerate(pairs):
        differences = contributions[first] - contributions[second]
        if _has_many_objects(differences):
            p[number] = _normal_p(differences)
        else:
            pairs_to_draw.append(number)
    if pairs_to_draw:
        drawn_pairs = [pairs[number] for number in pairs_to_draw]
        p[pairs_to_draw] = _drawn_p(contributions, drawn_pairs, draws, seed)
    return p


def _has_many_objects(differences: np.ndarray) -> bool:
    """Whether a sum with random signs counts as normal, by all measures of (measures, objects)."""
    squares = (differences**2).sum(axis=1)
    fourth_powers = (differences**4).sum(axis=1)
    # The effective number of objects, squares^2 / fourth_powers, may be 0 / 0; hence the product.
    is_below = squares**2 < MANY_OBJECTS * fourth_powers
    return not is_below.any()


def _normal_p(differences: np.ndarray) -> np.ndarray:
    """p (measures,) of sums of (measures, objects) whose random signs count as normal."""
    variance = (differences**2).sum(axis=1)
    variance = variance.clip(np.finfo(float).tiny)  # avoids dividing by 0
    largest = np.abs(differences).max(axis=1)
    corrected_sum = (np.abs(differences.sum(axis=1)) - largest).clip(0)
    return erfc(corrected_sum / np.sqrt(2 * variance))


def _drawn_p(
    contributions: np.ndarray, pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> np.ndarray:
    """p (pairs, measures): share of draws of signs with at least the observed difference."""
    measures = contributions.shape[1]
    # Units in no pair are left out; (pairs,) new indices of the first and second unit.
    used_units, new_numbers = np.unique(pairs, return_inverse=True)
    first, second = new_numbers.reshape(-1, 2).T
    # One product with this matrix sums over objects for all units and measures.
    by_unit_and_measure = contributions[used_units].reshape(-1, contributions.shape[2])
    contributes = by_unit_and_measure.any(axis=0)  # the sign of a zero doesn't matter
    # An object on which no pair differs changes no difference, whatever its sign.
    differs = _differs_in_a_pair(contributions, pairs)[contributes]
    by_object = by_unit_and_measure[:, contributes][:, differs].T
    by_object = np.ascontiguousarray(by_object)  # (objects that differ, units x measures)

    def absolute_differences(sums: np.ndarray) -> np.ndarray:
        """Differences (draws, pairs, measures) from sums over objects (draws, units x measures)."""
        by_unit = sums.reshape(-1, len(used_units), measures)
        return np.abs(by_unit[:, first] - by_unit[:, second])

    observed = absolute_differences(by_object.sum(axis=0)[None])
    bytes_of_draw = 8 * (len(differs) + 2 * observed.size)
    draws_at_once = max(1, BLOCK_BYTES // bytes_of_draw)
    at_least_observed = np.zeros(observed.shape[1:], np.int64)  # number of draws
    for drawn_sums in _sums_with_random_signs(by_object, differs, draws, draws_at_once, seed):
        drawn = absolute_differences(drawn_sums)
        at_least_observed += (drawn >= observed - ROUNDING).sum(axis=0)
    return (1 + at_least_observed) / (1 + draws)


def _sums_with_random_signs(
    by_object: np.ndarray, differs: np.ndarray, draws: int, draws_at_once: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields sums over objects with random signs, (draws of the block, units x measures)."""
    objects = len(differs)
    observed_sums = by_object.sum(axis=0)
    rng = np.random.default_rng(seed)
    is_positive = np.empty((draws_at_once, len(by_object)))  # 1.0 or 0.0
    for start in Progress(range(0, draws, draws_at_once), desc="flipping signs", unit="block"):
        draws_of_block = min(draws_at_once, draws - start)
        # Signs are drawn for all objects and used for those that differ, (objects,) bool.
        bits = _random_bits(draws_of_block, objects, rng)
        is_positive_in_block = is_positive[:draws_of_block]
        is_positive_in_block[...] = bits[:, differs]
        positive_sums = is_positive_in_block @ by_object
        # Each sign is 2 x bit - 1, so a sum with signs is twice the positive part minus the whole
        # sum.
        yield 2 * positive_sums - observed_sums


def _differs_in_a_pair(contributions: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """(objects,) bool: whether the two units of any pair differ on an object."""
    differs = np.zeros(contributions.shape[2], bool)
    for first, second in pairs:
        differs |= (contributions[first] != contributions[second]).any(axis=0)
    return differs


def _random_bits(draws: int, objects: int, rng: np.random.Generator) -> np.ndarray:
    """Random 0 or 1, (draws, objects) uint8, eight from each random byte."""
    words_of_draw = objects // 64 + 1  # of 64 bits
    random_bytes = np.frombuffer(rng.bytes(8 * words_of_draw * draws), np.uint8)
    return np.unpackbits(random_bytes.reshape(draws, -1), axis=1, count=objects)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm-adjusted p (tests,), which controls the family-wise error rate.

    The smallest of n p is multiplied by n, the next by n - 1 and so on; none falls below the one
    before or exceeds 1. 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06. NaN, for a pair that is not
    tested, stays NaN and does not count as a test.
    """
    adjusted = np.full(len(p), np.nan)
    is_tested = ~np.isnan(p)
    ascending = np.flatnonzero(is_tested)[np.argsort(p[is_tested], kind="stable")]
    remaining_tests = np.arange(len(ascending), 0, -1)
    multiplied = remaining_tests * p[ascending]
    adjusted[ascending] = np.minimum(1, np.maximum.accumulate(multiplied))
    return adjusted


@dataclass(frozen=True)
class WelchInterval:
    """The t interval and test of a difference between two means over networks."""

    low: float  # percentage points
    high: float
    freedom: float  # degrees of freedom
    p: float  # two-sided


def welch_interval(
    values: np.ndarray, other_values: np.ndarray, confidence: float
) -> WelchInterval:
    """Welch's t interval and test of the difference between the means of two groups of networks.

    With one value in either sample all is NaN. If the values of each sample are equal, the interval
    is the difference itself, without a test.

    Args:
        values, other_values: (networks,) percent.
    """
    if min(len(values), len(other_values)) < 2:
        return WelchInterval(np.nan, np.nan, np.nan, np.nan)
    if np.ptp(values) == 0 and np.ptp(other_values) == 0:
        difference = float(values[0] - other_values[0])
        return WelchInterval(difference, difference, np.nan, np.nan)
    test = ttest_ind(values, other_values, equal_var=False)
    interval = test.confidence_interval(confidence)
    return WelchInterval(
        low=float(interval.low),
        high=float(interval.high),
        freedom=float(test.df),
        p=float(test.pvalue),
    )


def letters(alike: np.ndarray) -> list[str]:
    """Compact letter display: two units share a letter if and only if they don't differ clearly.

    A unit, such as a method, may have several letters: `ab` differs clearly neither from `a` nor
    from `b`, which differ clearly from each other.

    Args:
        alike: (units, units) bool, symmetric, whether two don't differ clearly.

    Returns:
        One text per unit. The first units have the first letters; after `z` come `a1`, `b1` and
        so on.

    Source: Piepho 2004 (doi 10.1198/1061860043515), insert-and-absorb algorithm.
    """
    # Units of a group will share a letter. At first, all units are in one group.
    groups = {frozenset(range(len(alike)))}
    for first, second in itertools.combinations(range(len(alike)), 2):
        if not alike[first, second]:
            groups = _separate(groups, first, second)
    letters_of_unit = ["" for _ in alike]
    for number, group in enumerate(sorted(groups, key=sorted)):
        letter = string.ascii_lowercase[number % 26]
        if number >= 26:
            letter += str(number // 26)
        for unit in group:
            letters_of_unit[unit] += letter
    return letters_of_unit


def _separate(groups: Set[frozenset[int]], first: int, second: int) -> set[frozenset[int]]:
    """Groups where two units are never together: 0 and 1 of {0, 1, 2} give {1, 2} and {0, 2}."""
    split_groups = set()
    for group in groups:
        if first in group and second in group:
            split_groups |= {group - {first}, group - {second}}
        else:
            split_groups.add(group)
    # A group inside a larger group would give its units a letter that adds nothing.
    return {
        group
        for group in split_groups
        if not any(group < larger_group for larger_group in split_groups)
    }


def few_objects(table: pd.DataFrame) -> str:
    """Note that a table's tests are liberal, since a row has few objects; empty if none has.

    Args:
        table: a table with the column objects (their number); others get no note.
    """
    if "objects" not in table or table.empty:
        return ""
    fewest = table["objects"].min()
    if np.isnan(fewest) or fewest >= FEWEST_OBJECTS:
        return ""
    return (
        f"fewer than {FEWEST_OBJECTS} objects ({fewest:.0f}): the test finds differences too often"
    )
