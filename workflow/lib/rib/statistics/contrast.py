"""Contrasts: differences between two units by a measure, with intervals and tests.

Units are what is compared: methods on one model, models with one method, groups of networks. A
measure is a number that each unit has: RI of a target, mRI, accuracy before fine-tuning. All units
are scored on the same images and share draws of objects (what images show), so differences are
paired.

Intervals come from `rib.statistics.bootstrap`, and so do tests from three seeds on. With fewer
seeds, signs of objects are flipped (`rib.statistics.tests.sign_flip_p`). The standard deviation and
t interval over seeds take objects as fixed.

A merge over seeds has one run per target, so it has no spread over seeds. If other units have three
or more seeds, it has no test: nobody knows how much a merge of other seeds would differ. A unit
with an underfitted run has no test by the measures that depend on it, because they would compare
how far training got.
"""

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rib.statistics.bootstrap import FEWEST_SEEDS, over_runs, p_over_runs, spread
from rib.statistics.scored_state import ScoredState
from rib.statistics.tests import holm, sign_flip_p

INTERVAL = ["ci_low", "ci_high"]
SEEDS = ["seeds", "seed_sd", "seed_low", "seed_high"]
COMPARISON = ["difference", *INTERVAL, "p", "p_holm", *SEEDS]
COLUMNS = ["family", "measure", "unit", "other_unit", *COMPARISON]

Pair = tuple[str, str]  # a unit and another one, whose value is subtracted


@dataclass(frozen=True)
class Measured:
    """What one unit has of a measure, such as the RI of `ft` by target, seed and replicate."""

    # (targets, seeds, 1 + replicates) percent or percentage points, the observed value first; the
    # measure is their mean over targets and seeds. A merge over seeds has one seed.
    values: np.ndarray
    # (objects,) percentage points that each object adds to the measure; needed by `paired_p`
    contributions: np.ndarray | None = None
    is_fitted: bool = True  # False if the measure depends on an underfitted run

    def is_tested(self, seeds: int) -> bool:
        """Whether it has tests; `seeds` is the number of seeds of units that aren't merges."""
        has_all_seeds = self.values.shape[1] == seeds
        return self.is_fitted and (has_all_seeds or seeds < FEWEST_SEEDS)


@dataclass(frozen=True)
class Measure:
    """A number by which units are compared, such as mRI of methods."""

    name: str  # such as "mri"
    family: Hashable  # Holm's correction is over all tests of a family, such as "mri"
    units: Mapping[str, Measured]  # {"ft": ..., "lwf": ..., "pretrained": ...}

    def difference(self, unit: str, other_unit: str) -> np.ndarray:
        """Values of a unit minus another unit's: (targets, seeds, 1 + replicates).

        If only one of the two has a run for each seed, its mean over seeds is compared.
        """
        values = self.units[unit].values
        other_values = self.units[other_unit].values
        if values.shape != other_values.shape:  # one is a merge over seeds
            values = values.mean(axis=1, keepdims=True)
            other_values = other_values.mean(axis=1, keepdims=True)
        return values - other_values


def over_targets_and_seeds(
    arrays: Mapping[ScoredState, np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:
    """Arrays of one model's runs, joined by method and size: {("ft", "all"): array}.

    Each has the shape (targets, seeds, ...); targets and seeds are in ascending order.
    """
    arrays_of_methods: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for state in sorted(arrays):
        arrays_of_targets = arrays_of_methods.setdefault((state.run.method, state.run.size), {})
        arrays_of_targets.setdefault(state.run.target, []).append(arrays[state])
    return {
        method_and_size: np.array(list(arrays_of_methods[method_and_size].values()))
        for method_and_size in sorted(arrays_of_methods)
    }


def most_seeds(measures: Iterable[Measure]) -> int:
    """Number of seeds of the units that aren't merges over seeds, such as 3."""
    return max(
        of_unit.values.shape[1] for measure in measures for of_unit in measure.units.values()
    )


def all_pairs(units: Iterable[str]) -> list[Pair]:
    """Each unit with each later one: [("ft", "lwf"), ("ft", "pretrained"), ...]."""
    return list(itertools.combinations(units, 2))


def paired_p(
    measures: Sequence[Measure], pairs: Sequence[Pair], draws: int, seed: int
) -> np.ndarray:
    """Two-sided p of differences between units that are scored on the same objects.

    Args:
        measures: all with the same units.
        draws: number of random sign flips, used with fewer than three seeds and few objects.
        seed: of these draws.

    Returns:
        (measures, pairs), 0 to 1; NaN for pairs with a unit that is not tested.
    """
    seeds = most_seeds(measures)
    p_of_signs = np.empty((0, 0))  # (measures, pairs)
    if seeds < FEWEST_SEEDS:
        p_of_signs = _p_of_signs(measures, pairs, draws, seed)
    p = np.full((len(measures), len(pairs)), np.nan)
    for i, measure in enumerate(measures):
        for j, (unit, other_unit) in enumerate(pairs):
            if not all(measure.units[name].is_tested(seeds) for name in (unit, other_unit)):
                continue
            if seeds < FEWEST_SEEDS:
                p[i, j] = p_of_signs[i, j]
            else:
                p[i, j] = p_over_runs(measure.difference(unit, other_unit))
    return p


def _p_of_signs(
    measures: Sequence[Measure], pairs: Sequence[Pair], draws: int, seed: int
) -> np.ndarray:
    """p (measures, pairs) of sign flips, all with the same draws, tested or not."""
    units = list(measures[0].units)
    contributions = [[measure.units[unit].contributions for measure in measures] for unit in units]
    indices = [(units.index(unit), units.index(other_unit)) for unit, other_unit in pairs]
    return sign_flip_p(np.array(contributions), indices, draws, seed).T


def contrasts(
    measures: Sequence[Measure], pairs: Sequence[Pair], p: np.ndarray, confidence: float
) -> pd.DataFrame:
    """Differences between the units of each pair by each measure.

    Args:
        p: (measures, pairs) of their tests, such as of `paired_p`; NaN if not tested.

    Returns:
        One row per measure and pair: family (of tests), measure (its name), unit, other_unit,
        difference (percentage points, unit minus other_unit) with its confidence interval ci_low,
        ci_high, p and p_holm (Holm-adjusted over the family; NaN if not tested), and the spread of
        the difference over seeds: seeds (their number), seed_sd, seed_low, seed_high.
    """
    lines = []
    for measure, p_of_pairs in zip(measures, p, strict=True):
        for (unit, other_unit), p_of_pair in zip(pairs, p_of_pairs, strict=True):
            difference = measure.difference(unit, other_unit)
            estimate_and_interval = over_runs(difference, confidence)
            over_seeds = spread(difference[..., 0].mean(axis=0), confidence)
            names = (measure.family, measure.name, unit, other_unit)
            p_holm = np.nan  # filled in below
            lines.append((*names, *estimate_and_interval, p_of_pair, p_holm, *over_seeds))
    table = pd.DataFrame(lines, columns=COLUMNS)
    p_of_families = table.groupby("family")["p"]
    table["p_holm"] = p_of_families.transform(lambda p_of_family: holm(p_of_family.to_numpy()))
    return table
