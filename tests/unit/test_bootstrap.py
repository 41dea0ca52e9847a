"""Intervals and p-values over objects and seeds."""

import numpy as np
import pytest
from scipy import stats

from rib.analysis.bootstrap import (
    LIMITS,
    estimate,
    object_weights,
    over_runs,
    p_over_runs,
    spread,
    variance_of_mean,
)
from tiny.tiers import first


def drawn_runs(rng, targets, seeds, of_objects, of_seeds, of_both, replicates=300, objects=120):
    """Values of runs (targets, seeds, 1 + replicates), each a mean over objects, of expectation 0.

    Effects of objects are shared by all runs; effects of seeds differ between targets.
    The arguments are standard deviations; `of_both` is that of what a run adds to each object.
    """
    shared = rng.normal(0, of_objects, objects)
    runs = (
        rng.normal(0, of_seeds, (targets, seeds, 1))
        + rng.normal(0, of_both, (targets, seeds, objects))
        + shared
    )
    weights = rng.multinomial(objects, np.full(objects, 1 / objects), size=replicates)
    weights = np.vstack([np.ones(objects), weights]) / objects
    return runs @ weights.T


# Shares of the variance as measured on emoji (seeds half as much as objects), each of them
# dominating, and a paired difference, of which objects cancel.
@pytest.mark.parametrize(
    "targets, seeds, parts",
    first(
        [
            (4, 3, (0.2, 0.5, 0.2)),
            (1, 3, (1, 0.05, 0.5)),
            (1, 3, (0.1, 0.5, 0.1)),
            (1, 3, (1, 0.25, 0.1)),
            (1, 3, (1, 0.4, 0.1)),
            (4, 3, (1, 0.1, 1.5)),
            (4, 3, (0.3, 0.1, 1)),
            (1, 5, (1, 0.1, 1)),
            (4, 5, (0.3, 0.05, 1)),
        ]
    ),
)
def test_two_level_intervals_cover_as_often_as_they_say(targets, seeds, parts):
    rng, simulated = np.random.default_rng(0), 1000
    found = [drawn_runs(rng, targets, seeds, *parts) for _ in range(simulated)]
    hits = sum(low <= 0 <= high for _, low, high in (over_runs(values, 0.95) for values in found))
    p = np.array([p_over_runs(values) for values in found])
    assert 0.93 < hits / simulated < 0.975 and hits == (p >= 0.05).sum()
    assert (p <= 0.01).mean() < 0.02 and (p <= 0.001).mean() <= 0.004, (
        "Holm's correction needs small p"
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_few_seeds_only_objects_are_resampled(seeds):
    values = drawn_runs(np.random.default_rng(1), 3, seeds, 1, 1, 1)
    assert over_runs(values, 0.9) == estimate(values.mean(axis=(0, 1)), 0.9)


def test_without_effects_of_objects_the_interval_is_students_over_seeds():
    values = np.repeat(np.random.default_rng(2).normal(2, 1, (1, 4, 1)), 101, axis=2)
    observed = values[0, :, 0]
    mean, low, high = over_runs(values, 0.95)
    test = stats.ttest_1samp(observed, 0)
    assert mean == pytest.approx(observed.mean()) and (low, high) == pytest.approx(
        test.confidence_interval(0.95)
    )
    assert p_over_runs(values) == pytest.approx(test.pvalue)


def test_without_effects_of_seeds_the_standard_error_is_that_of_the_objects():
    rng = np.random.default_rng(3)
    drawn = rng.normal(size=401)
    mean, low, high = over_runs(np.broadcast_to(drawn, (2, 3, 401)), 0.95)
    reach = stats.norm.ppf(0.975) * drawn[1:].std()
    assert (mean, low, high) == pytest.approx((drawn[0], drawn[0] - reach, drawn[0] + reach))


def test_the_interval_excludes_zero_where_p_is_below_its_level():
    rng = np.random.default_rng(4)
    for _ in range(50):
        values = drawn_runs(rng, 2, 3, 1, 0.3, 0.5, replicates=100) + rng.normal(0, 0.3)
        _, low, high = over_runs(values, 0.9)
        assert (p_over_runs(values) < 0.1) == (low > 0 or high < 0)


@pytest.mark.parametrize("targets, seeds", [(1, 3), (2, 4)])
def test_what_objects_add_to_the_variance_over_seeds_is_that_of_a_mean_of_independent_runs(
    targets, seeds
):
    """Resampling moves each run by itself here, with a standard deviation of 2 points."""
    noise_of_resampling = np.random.default_rng(8).normal(0, 2, (targets, seeds, 20001))

    variance = variance_of_mean(noise_of_resampling)

    variance_of_a_mean_of_all_runs = 2**2 / (targets * seeds)
    assert variance.shared == pytest.approx(variance_of_a_mean_of_all_runs, rel=0.05)


def test_accuracies_stay_within_their_limits():
    values = 98.5 + drawn_runs(np.random.default_rng(6), 1, 3, 1, 1, 1)
    mean, low, high = over_runs(values, 0.95, LIMITS)
    assert (
        over_runs(values, 0.95)[2] > 100
        and high == 100
        and (mean, low) == over_runs(values, 0.95)[:2]
    )


def test_runs_that_never_differ_have_p_one_and_no_width():
    assert p_over_runs(np.zeros((2, 3, 50))) == 1 and over_runs(np.zeros((2, 3, 50)), 0.95) == (
        0,
        0,
        0,
    )


def test_replicates_without_objects_are_left_out():
    values = drawn_runs(np.random.default_rng(5), 2, 3, 1, 0.3, 0.5)
    holes = values.copy()
    holes[0, 1, 7] = np.nan
    assert over_runs(holes, 0.95) == pytest.approx(over_runs(np.delete(values, 7, axis=2), 0.95))


def test_weights_are_those_of_a_bootstrap_of_all_objects():
    weights = object_weights(30, 200, 0)
    assert (weights[0] == 1).all() and (weights.sum(axis=1) == 30).all()
    assert (weights == object_weights(30, 200, 0)).all() and (
        weights != object_weights(30, 200, 1)
    ).any()


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_over_seeds_is_students(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    seeds, sd, low, high = spread(values, 0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (seeds, sd) == (n, pytest.approx(np.std(values, ddof=1))) and (
        low,
        high,
    ) == pytest.approx(expected)


def test_one_seed_tells_nothing_of_others():
    n, *found = spread(np.array([4.0]), 0.95)
    assert n == 1 and np.isnan(found).all()
