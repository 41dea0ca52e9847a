"""Bootstrap over objects and, from three training seeds on, inference over seeds.

An object is what images show, such as one emoji; all its images are drawn together.

Targets and datasets are fixed. With fewer seeds the trained networks are fixed, too.

With three or more seeds, objects and seeds are both random: the value of a run is a mean over
objects plus an effect of its training, which is independent between targets. Resampling seeds as
well as objects would be wrong twice: draws from S seeds vary (S - 1) / S times as much as means of
S seeds do, and the effect of a training on single objects would be counted in both levels (Owen
2007, doi 10.1214/07-AOAS122). So the variance of a mean over runs is composed:

    V = O + max(0, B - C)

O: variance over the bootstrap's replicates of objects; B: variance of the seeds' observed means,
over S; C: the part of B that is due to objects, which O contains already, from the replicates of
single runs. B and C are summed over targets. Few seeds estimate their variance poorly, so the tails
lie between a normal distribution, which treats O as known, and Student's t with the degrees of
freedom of B (S - 1 for each target, combined as by Satterthwaite 1946, doi 10.2307/3002019): p is
the average of both, weighted by O and B, and the interval ends where p is 1 minus the confidence.
Satterthwaite's t for V itself would reject far too often at small p, where V happens to look known.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr, stdtrit

FEWEST_SEEDS = 3  # for inference over seeds
LIMITS = (0.0, 100.0)  # of accuracies in percent
NO_LIMITS = (-np.inf, np.inf)
REPLICATES_OF_BLOCK = 200  # at once, to bound memory


@lru_cache(1)  # all models of a grid share one set
def object_weights(objects: int, replicates: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """How often each object counts in each bootstrap replicate: (replicates + 1, objects) uint8.

    Row 0 counts every object once. The others draw as many objects with replacement, such as [2, 0,
    1] of three objects. All runs and datasets share the draws, so their differences are paired. A
    pair of numbers as seed gives draws of its own.
    """
    rng = np.random.default_rng(seed)
    uniform = np.full(objects, 1 / objects)
    # No object is drawn 256 times, so 8 bits suffice.
    times_drawn = np.ones((replicates + 1, objects), np.uint8)
    for replicate in range(1, replicates + 1):
        times_drawn[replicate] = rng.multinomial(objects, uniform)
    return times_drawn


def blocks_of_weights(weights: np.ndarray, objects: np.ndarray) -> Iterator[np.ndarray]:
    """Yield weights of some objects as floats, (replicates of the block, objects).

    Args:
        weights: (replicates, all objects), as `object_weights` gives them.
        objects: (objects,) their indices; an object may occur several times.
    """
    for start in range(0, len(weights), REPLICATES_OF_BLOCK):
        yield weights[start : start + REPLICATES_OF_BLOCK, objects].astype(np.float64)


def weighted_means(
    weights: np.ndarray, objects: np.ndarray, *, sums: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """Means over the images of some objects in each replicate: (replicates, k).

    A replicate without any of the objects has NaN.

    Args:
        weights: (replicates, all objects), as `object_weights` gives them.
        objects: (objects,) their indices; an object may occur several times.
        sums: (k, objects), such as right answers to the images of each object.
        images: (objects,), numbers of images.
    """
    # One column for each of the k sums, and one for the numbers of images.
    columns = np.vstack([sums, images]).astype(np.float64).T
    totals = np.concatenate([block @ columns for block in blocks_of_weights(weights, objects)])
    total_images = totals[:, -1:]
    with np.errstate(invalid="ignore"):
        return totals[:, :-1] / total_images


def estimate(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Observed value, and low and high end of the percentile interval of the replicates.

    Args:
        values: (1 + replicates,), the observed value first. Replicates that drew no object of a
            dataset are NaN, which small datasets cause; they are left out.
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
    """Mean over targets and seeds, and low and high end of its confidence interval.

    The interval is over objects and, from three seeds on, over seeds.

    Args:
        values: (targets, seeds, 1 + replicates), the observed value first.
        limits: the interval is cut off at these, such as 0 and 100 for accuracies.
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
    """Two-sided p of the hypothesis that the mean over runs is 0, for three seeds or more.

    Args:
        values: (targets, seeds, 1 + replicates), the observed value first, such as differences of
            RI between two methods.
    """
    mean = values[..., 0].mean()
    variance = variance_of_mean(values)
    if not variance.error:
        return float(mean == 0)
    return _tails(abs(mean) / variance.error, variance)


@dataclass(frozen=True)
class Variance:
    """Parts of the variance of a mean over runs (O, B and C in the module), in squared units."""

    of_objects: float  # O, over draws of objects
    of_seeds: float  # B, over seeds; 0 with fewer than three: trained networks are fixed
    shared: float  # C, the part of B that O contains already
    freedom: float  # degrees of freedom of B, from 1

    @property
    def of_trainings(self) -> float:
        """Variance that trainings add to the variance over objects."""
        return max(0.0, self.of_seeds - self.shared)

    @property
    def error(self) -> float:
        """Standard error of the mean, sqrt(V)."""
        return float(np.sqrt(self.of_objects + self.of_trainings))

    @property
    def student_share(self) -> float:
        """Share of Student's t in the tails; the rest is normal: B / (O + B), 0 to 1."""
        if not self.of_seeds:
            return 0.0
        return self.of_seeds / (self.of_objects + self.of_seeds)


def variance_of_mean(values: np.ndarray) -> Variance:
    """Variance of the mean over targets and seeds, in parts that intervals and tests need.

    Args:
        values: (targets, seeds, 1 + replicates), the observed value first.
    """
    targets, seeds, _ = values.shape
    # A replicate that drew no object of a dataset is NaN.
    values = values[..., ~np.isnan(values).any(axis=(0, 1))]
    observed = values[..., 0]
    replicates = values[..., 1:]
    of_objects = replicates.mean(axis=(0, 1)).var()
    if seeds < FEWEST_SEEDS:
        return Variance(of_objects, of_seeds=0.0, shared=0.0, freedom=1.0)

    # (targets,) what each target adds to B and C.
    scale = 1 / seeds / targets**2
    of_seeds = scale * observed.var(axis=1, ddof=1)
    # A draw of objects that changes all seeds alike doesn't add to B, so their mean is removed.
    from_mean_over_seeds = replicates - replicates.mean(axis=1, keepdims=True)
    shared = scale * from_mean_over_seeds.var(axis=2).sum(axis=1) / (seeds - 1)
    sum_of_seeds = of_seeds.sum()
    freedom = seeds - 1
    if sum_of_seeds:
        freedom = (seeds - 1) * sum_of_seeds**2 / (of_seeds**2).sum()
    return Variance(of_objects, sum_of_seeds, shared.sum(), freedom)


def reach_of(p: float, variance: Variance) -> float:
    """Half the width of a confidence interval, in standard errors: 1.96 for 95 %, if normal.

    Args:
        p: probability of both tails together, 0.05 for an interval of 95 %.
    """
    # No tails are wider than Student's alone; the factor allows for a rounding error.
    farthest = stdtrit(variance.freedom, 1 - p / 2) * (1 + 1e-9)

    def excess_of_tails(standard_errors: float) -> float:
        """0 at the half width that is looked for."""
        return _tails(standard_errors, variance) - p

    return brentq(excess_of_tails, 0, farthest)


def _tails(standard_errors: float, variance: Variance) -> float:
    """Probability of a mean at least so many standard errors from 0: normal and Student's mixed."""
    share = variance.student_share
    normal_tail = ndtr(-standard_errors)
    student_tail = stdtr(variance.freedom, -standard_errors)
    return float(2 * ((1 - share) * normal_tail + share * student_tail))


def spread(values: np.ndarray, confidence: float) -> tuple[int, float, float, float]:
    """Spread of values over seeds, or over targets, with all else fixed.

    Returns:
        Number of values, their standard deviation (n - 1), and low and high end of Student's t
        interval of their mean. With one value, the last three are NaN.
    """
    n = len(values)
    if n < 2:
        return n, np.nan, np.nan, np.nan
    deviation = values.std(ddof=1)
    reach = stdtrit(n - 1, (1 + confidence) / 2) * deviation / np.sqrt(n)
    mean = values.mean()
    return n, deviation, mean - reach, mean + reach
