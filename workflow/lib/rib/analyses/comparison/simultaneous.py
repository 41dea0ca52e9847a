"""Simultaneous intervals of differences from a reference method, and the power of a test.

With the stated confidence, all intervals together include the true differences. They come from a
max-t bootstrap (Westfall and Young 1993, Resampling-Based Multiple Testing) over the draws of
objects that all other intervals use:

1. Each difference has the standard error of `rib.statistics.bootstrap`.
2. Each replicate has a largest deviation of a method from its observed difference, in standard
   errors.
3. Each interval reaches as many standard errors as the quantile of these largest deviations at the
   confidence.

From three seeds on, replicates include trainings: a normal deviation with the variance of trainings
is added, and the standard error has a variance over seeds that is drawn like the variance of so few
seeds (chi-squared, with its degrees of freedom). Both are drawn independently for each method.
Three seeds can't show how trainings of two methods correlate, and independence makes the largest
deviation larger.

Targets, datasets, methods, models and, with fewer than three seeds, trained networks are fixed.
Objects and, from three seeds on, trainings are resampled.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr, ndtr

from rib.statistics.bootstrap import reach_of, variance_of_mean

POWER = 0.8  # nominal power at which the smallest difference is found


def simultaneous_intervals(
    differences: Sequence[np.ndarray], confidence: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean differences from a reference method, and ends of their simultaneous intervals.

    Args:
        differences: of each method, (targets, seeds, 1 + replicates) percentage points, the method
            minus the reference, the observed value first; at least one method.
        confidence: probability that all intervals include the true differences, 0 to 1.
        seed: of the draws of trainings.

    Returns:
        difference, low and high, (methods,) percentage points.
    """
    # (methods, 1 + replicates)
    means = np.array([of_method.mean(axis=(0, 1)) for of_method in differences])
    # A replicate that drew no object of a dataset is NaN for all methods.
    means = means[:, ~np.isnan(means).any(axis=0)]
    observed = means[:, 0]
    variances = [variance_of_mean(of_method) for of_method in differences]
    errors = np.array([variance.error for variance in variances])

    # (methods, replicates): deviation from the observed difference, and standard error in that
    # replicate.
    deviations = means[:, 1:] - means[:, :1]
    replicates = deviations.shape[1]
    replicate_errors = np.repeat(errors[:, None], replicates, axis=1)
    rng = np.random.default_rng(seed)
    for method, variance in enumerate(variances):
        if variance.of_seeds:
            normal = rng.standard_normal(replicates)
            deviations[method] += np.sqrt(variance.of_trainings) * normal
            chi_squared = rng.chisquare(variance.freedom, replicates)
            of_seeds = variance.of_seeds * chi_squared / variance.freedom
            of_trainings = np.maximum(0, of_seeds - variance.shared)
            replicate_errors[method] = np.sqrt(variance.of_objects + of_trainings)

    # A method that is right on the same images as the reference in all runs has error 0.
    varies = errors > 0
    ratios = np.abs(deviations[varies]) / replicate_errors[varies]
    largest_ratios = ratios.max(axis=0, initial=0)  # (replicates,)
    reach = np.quantile(largest_ratios, confidence)  # in standard errors
    return observed, observed - reach * errors, observed + reach * errors


def smallest_clear_difference(differences: np.ndarray, tests: int, confidence: float) -> float:
    """Smallest true difference that a test of two methods finds with a nominal power of 80 %.

    The level is the first step of Holm's correction, (1 - confidence) / tests. Distributions lie
    between normal and, from three seeds on, Student's t, as in `rib.statistics.bootstrap`. With 200
    objects the power is 65 to 77 %, by simulation: errors are estimated, and signs of objects are
    flipped around 0, where contributions spread more than around their mean.

    Args:
        differences: (targets, seeds, 1 + replicates) percentage points between two methods.
        tests: number of tests that are corrected for.

    Returns:
        Percentage points; 0 if the methods are right on the same images in all runs.
    """
    variance = variance_of_mean(differences)
    critical = reach_of((1 - confidence) / tests, variance)  # in standard errors
    share = variance.student_share  # of Student's t beside the normal distribution

    def missing_power(standard_errors: float) -> float:
        """`POWER` minus the power for a true difference of so many standard errors."""
        by_normal = ndtr(standard_errors - critical)
        by_student = 1 - nctdtr(variance.freedom, standard_errors, critical)
        return POWER - (1 - share) * by_normal - share * by_student

    return variance.error * brentq(missing_power, 0, 3 * critical + 10)
