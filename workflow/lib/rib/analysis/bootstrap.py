"""Bootstrap over resampling units (objects) and, with at least three seeds, inference over training seeds as well.

Targets and datasets are fixed, and with fewer seeds the trained networks are, too.

With three or more seeds, objects and seeds are both drawn at random: a run's value is a mean over objects plus an effect
of its training, independent between targets. Resampling seeds as well as objects would be wrong twice: draws from S seeds
vary (S - 1) / S times as much as means of S seeds do, and how much a training changes single objects would be counted in
both levels (Owen 2007, doi 10.1214/07-AOAS122). So the variance of a mean over runs is put together from its parts:

    V = O + max(0, B - C)

O: variance over the bootstrap's replicates of objects; B: variance of the seeds' observed means, over S; C: the part of B
that is due to the objects, which O contains already, from the replicates of the single runs. B and C are summed over
targets. Few seeds tell their variance badly, so the tails are between those of a normal distribution, where O counts as
known, and of Student's t with the degrees of freedom of B (S - 1 for each target, combined as by Satterthwaite 1946, doi
10.2307/3002019): p is the average of both, weighted by O and B, and the interval has the ends at which p is 1 minus the
confidence. Satterthwaite's t for V itself would reject far too often at small p, where V happens to look known.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr, stdtrit

FEWEST_SEEDS = 3  # for inference over seeds
LIMITS = (0.0, 100.0)  # of accuracies in percent


@lru_cache(1)  # one set for all models of a grid
def object_weights(objects: int, replicates: int, seed: int) -> np.ndarray:
    """Bootstrap weights (replicates + 1, objects) uint8: row 0 counts every object once, others draw with replacement.

    All runs and datasets share the same draws, so differences between them are paired. No object is drawn 256 times.
    """
    rng, uniform = np.random.default_rng(seed), np.full(objects, 1 / objects)
    weights = np.ones((replicates + 1, objects), np.uint8)
    for row in weights[1:]:
        row[:] = rng.multinomial(objects, uniform)
    return weights


def estimate(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Observed value, the first of (1 + replicates,), and the percentile confidence interval of the replicates.

    A replicate that drew no object of a dataset is NaN, which can happen if the dataset has few objects.
    """
    tail = 50 * (1 - confidence)
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(drawn, [tail, 100 - tail]) if len(drawn) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)


def over_runs(
    values: np.ndarray, confidence: float, limits: tuple = (-np.inf, np.inf)
) -> tuple[float, float, float]:
    """Mean over the runs of targets and seeds, and its confidence interval over objects and, from three on, seeds.

    Args:
        values: (targets, seeds, 1 + replicates), observed and of each replicate of objects.
        limits: beyond which the interval cannot reach.
    """
    means = values.mean(axis=(0, 1))
    if values.shape[1] < FEWEST_SEEDS:
        return estimate(means, confidence)
    variance = variance_of_mean(values)
    reach = variance.error * reach_of(1 - confidence, variance)
    low, high = np.clip((means[0] - reach, means[0] + reach), *limits)
    return float(means[0]), float(low), float(high)


def p_over_runs(values: np.ndarray) -> float:
    """Two-sided p of the hypothesis that the mean of `over_runs` is 0, with at least three seeds."""
    mean, variance = values[..., 0].mean(), variance_of_mean(values)
    return _tails(abs(mean) / variance.error, variance) if variance.error else float(mean == 0)


@dataclass(frozen=True)
class Variance:
    """Variance of a mean over runs in its parts O, B and C (see the module), in squared units of the values."""

    of_objects: float  # O
    of_seeds: float  # B; 0 with fewer than three seeds, when the trained networks are fixed
    shared: float  # C
    freedom: float  # degrees of freedom of B, from 1

    @property
    def of_trainings(self) -> float:
        """What trainings add to the variance over objects."""
        return max(0.0, self.of_seeds - self.shared)

    @property
    def error(self) -> float:
        """Standard error of the mean, sqrt(V)."""
        return float(np.sqrt(self.of_objects + self.of_trainings))

    @property
    def student_weight(self) -> float:
        """Weight of Student's tails beside the normal ones, B / (O + B)."""
        return self.of_seeds / (self.of_objects + self.of_seeds) if self.of_seeds else 0.0


def variance_of_mean(values: np.ndarray) -> Variance:
    """Variance of the mean of `over_runs`.

    Args:
        values: (targets, seeds, 1 + replicates), observed and of each replicate of objects.
    """
    targets, seeds, _ = values.shape
    values = values[..., ~np.isnan(values).any(axis=(0, 1))]  # see `estimate`
    observed, drawn = values[..., 0], values[..., 1:]
    of_objects = drawn.mean(axis=(0, 1)).var()
    if seeds < FEWEST_SEEDS:
        return Variance(of_objects, 0.0, 0.0, 1.0)
    scale = 1 / seeds / targets**2
    of_seeds = scale * observed.var(axis=1, ddof=1)
    shared = (
        scale * (drawn - drawn.mean(axis=1, keepdims=True)).var(axis=2).sum(axis=1) / (seeds - 1)
    )
    whole = of_seeds.sum()
    freedom = (seeds - 1) * whole**2 / (of_seeds**2).sum() if whole else seeds - 1
    return Variance(of_objects, whole, shared.sum(), freedom)


def reach_of(p: float, variance: Variance) -> float:
    """Standard errors from the mean to the ends of an interval outside of which both tails sum to p."""
    # Student's tails alone, and a rounding error.
    farthest = stdtrit(variance.freedom, 1 - p / 2) * (1 + 1e-9)
    return brentq(lambda ratio: _tails(ratio, variance) - p, 0, farthest)


def _tails(ratio: float, variance: Variance) -> float:
    """Both tails beyond a ratio to the standard error, between those of the normal and of Student's distribution."""
    weight = variance.student_weight
    return float(2 * ((1 - weight) * ndtr(-ratio) + weight * stdtr(variance.freedom, -ratio)))


def spread(values: np.ndarray, confidence: float) -> tuple[int, float, float, float]:
    """Number of seeds (or targets), standard deviation over them (n - 1), and Student's t-interval of their mean.

    With one value, the last three are NaN.
    """
    n = len(values)
    if n < 2:
        return n, np.nan, np.nan, np.nan
    sd = values.std(ddof=1)
    half = stdtrit(n - 1, (1 + confidence) / 2) * sd / np.sqrt(n)
    return n, sd, values.mean() - half, values.mean() + half
