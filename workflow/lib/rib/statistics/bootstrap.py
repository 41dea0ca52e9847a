"""Bootstrap over objects, and inference over training seeds if there are at least three.

Objects are the resampling units.

Targets and datasets are fixed, and with fewer seeds the trained networks are, too.

With three or more seeds, objects and seeds are both drawn at random: a run's value is a mean over
objects plus an effect of its training, independent between targets. Resampling seeds as well as
objects would be wrong twice: draws from S seeds vary (S - 1) / S times as much as means of S seeds
do, and how much a training changes single objects would be counted in both levels (Owen 2007, doi
10.1214/07-AOAS122). So the variance of a mean over runs is put together from its parts:

    V = O + max(0, B - C)

O: variance over the bootstrap's replicates of objects; B: variance of the seeds' observed means,
over S; C: the part of B that is due to the objects, which O contains already, from the replicates
of the single runs. B and C are summed over targets. Few seeds tell their variance badly, so the
tails are between those of a normal distribution, where O counts as known, and of Student's t with
the degrees of freedom of B (S - 1 for each target, combined as by Satterthwaite 1946, doi
10.2307/3002019): p is the average of both, weighted by O and B, and the interval has the ends at
which p is 1 minus the confidence. Satterthwaite's t for V itself would reject far too often at
small p, where V happens to look known.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr, stdtrit

FEWEST_SEEDS = 3  # for inference over seeds
LIMITS = (0.0, 100.0)  # of accuracies in percent
NO_LIMITS = (-np.inf, np.inf)


@lru_cache(1)  # one set for all models of a grid
def object_weights(objects: int, replicates: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """How often each object counts in each bootstrap replicate: (replicates + 1, objects) uint8.

    Row 0 counts every object once; the others draw as many objects with replacement, such as
    [2, 0, 1] of three objects. All runs and datasets share the same draws, so differences between
    them are paired. No object is drawn 256 times.
    """
    rng = np.random.default_rng(seed)
    uniform = np.full(objects, 1 / objects)
    weights = np.ones((replicates + 1, objects), np.uint8)
    for replicate in range(1, replicates + 1):
        weights[replicate] = rng.multinomial(objects, uniform)
    return weights


def estimate(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Observed value and the ends of the percentile confidence interval of the replicates.

    Args:
        values: (1 + replicates,), the observed one first. A replicate that drew no object of a
            dataset is NaN and left out, which can happen if the dataset has few objects.
        confidence: 0 to 1.
    """
    percent_of_tail = 50 * (1 - confidence)
    replicates = values[1:]
    replicates = replicates[~np.isnan(replicates)]
    low, high = np.nan, np.nan
    if len(replicates):
        low, high = np.percentile(replicates, [percent_of_tail, 100 - percent_of_tail])
    return float(values[0]), float(low), float(high)


def over_runs(
    values: np.ndarray, confidence: float, limits: tuple[float, float] = NO_LIMITS
) -> tuple[float, float, float]:
    """Mean over targets and seeds, and the ends of its confidence interval.

    The interval is over objects and, from three seeds on, over seeds.

    Args:
        values: (targets, seeds, 1 + replicates), observed and of each replicate of objects.
        confidence: 0 to 1.
        limits: beyond which the interval cannot reach.
    """
    means = values.mean(axis=(0, 1))
    seeds = values.shape[1]
    if seeds < FEWEST_SEEDS:
        return estimate(means, confidence)
    observed = means[0]
    variance = variance_of_mean(values)
    reach = variance.error * reach_of(1 - confidence, variance)
    low, high = np.clip((observed - reach, observed + reach), *limits)
    return float(observed), float(low), float(high)


def p_over_runs(values: np.ndarray) -> float:
    """Two-sided p of the hypothesis that the mean of `over_runs` is 0, with three seeds or more."""
    mean = values[..., 0].mean()
    variance = variance_of_mean(values)
    if not variance.error:
        return float(mean == 0)
    return _tails(abs(mean) / variance.error, variance)


@dataclass(frozen=True)
class Variance:
    """Variance of a mean over runs in its parts O, B and C (see the module), in squared units."""

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
        """Weight of Student's tails beside the normal ones: the share of the variance over seeds.

        It is B / (O + B), 0 to 1, where B is the variance over seeds and O that over objects.
        """
        if not self.of_seeds:
            return 0.0
        return self.of_seeds / (self.of_objects + self.of_seeds)


def variance_of_mean(values: np.ndarray) -> Variance:
    """Variance of the mean of `over_runs`.

    Args:
        values: (targets, seeds, 1 + replicates), observed and of each replicate of objects.
    """
    targets, seeds, _ = values.shape
    # A replicate that drew no object of a dataset is NaN.
    values = values[..., ~np.isnan(values).any(axis=(0, 1))]
    observed = values[..., 0]
    replicates = values[..., 1:]
    of_objects = replicates.mean(axis=(0, 1)).var()
    if seeds < FEWEST_SEEDS:
        return Variance(of_objects, of_seeds=0.0, shared=0.0, freedom=1.0)

    # B and C of each target, (targets,): what it adds to the variance of the mean over targets.
    scale = 1 / seeds / targets**2
    of_seeds = scale * observed.var(axis=1, ddof=1)
    from_mean_over_seeds = replicates - replicates.mean(axis=1, keepdims=True)
    shared = scale * from_mean_over_seeds.var(axis=2).sum(axis=1) / (seeds - 1)
    sum_of_seeds = of_seeds.sum()
    freedom = seeds - 1
    if sum_of_seeds:
        freedom = (seeds - 1) * sum_of_seeds**2 / (of_seeds**2).sum()
    return Variance(of_objects, sum_of_seeds, shared.sum(), freedom)


def reach_of(p: float, variance: Variance) -> float:
    """Standard errors from the mean to the ends of an interval, 1.96 for a normal one of 95 %.

    Args:
        p: probability of both tails outside of the interval together, 0.05 for one of 95 %.
    """
    # No tails are wider than Student's alone; the factor allows for a rounding error.
    farthest = stdtrit(variance.freedom, 1 - p / 2) * (1 + 1e-9)

    def excess_of_tails(ratio: float) -> float:
        """Probability of the tails beyond a ratio, minus the wanted one."""
        return _tails(ratio, variance) - p

    return brentq(excess_of_tails, 0, farthest)


def _tails(ratio: float, variance: Variance) -> float:
    """Probability of both tails beyond a ratio to the standard error.

    They are between those of the normal and of Student's distribution.
    """
    weight = variance.student_weight
    normal_tail = ndtr(-ratio)
    student_tail = stdtr(variance.freedom, -ratio)
    return float(2 * ((1 - weight) * normal_tail + weight * student_tail))


def spread(values: np.ndarray, confidence: float) -> tuple[int, float, float, float]:
    """Spread of a mean over seeds, or over targets.

    Returns:
        number of values, their standard deviation (n - 1), and the ends of Student's t-interval of
        their mean. With one value, the last three are NaN.
    """
    n = len(values)
    if n < 2:
        return n, np.nan, np.nan, np.nan
    deviation = values.std(ddof=1)
    reach = stdtrit(n - 1, (1 + confidence) / 2) * deviation / np.sqrt(n)
    mean = values.mean()
    return n, deviation, mean - reach, mean + reach
