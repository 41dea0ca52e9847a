"""Intervals and p-values over objects and seeds."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from rib.statistics.bootstrap import (
    LIMITS,
    estimate,
    object_weights,
    over_runs,
    p_over_runs,
    spread,
    variance_of_mean,
)
from tiny.tiers import first


@dataclass(frozen=True)
class Effects:
    """Standard deviations of what makes the values of runs differ from their expectation."""

    of_objects: float  # shared by all runs
    of_seeds: float  # other ones on each target
    of_both: float  # what a run adds to each object


def drawn_runs(rng, targets, seeds, effects, replicates=300, objects=120):
    """Values of runs (targets, seeds, 1 + replicates), each a mean over objects.

    Their expectation is 0. The first value of a run is the observed one.
    """
    effect_of_objects = rng.normal(0, effects.of_objects, objects)
    effect_of_seeds = rng.normal(0, effects.of_seeds, (targets, seeds, 1))
    effect_of_both = rng.normal(0, effects.of_both, (targets, seeds, objects))
    value_of_objects = effect_of_seeds + effect_of_both + effect_of_objects
    uniform = np.full(objects, 1 / objects)
    times_drawn = rng.multinomial(objects, uniform, size=replicates)
    weights = np.vstack([np.ones(objects), times_drawn]) / objects
    return value_of_objects @ weights.T


@pytest.mark.thorough
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
    # given
    rng = np.random.default_rng(0)
    effects = Effects(*parts)
    simulations = 1000
    # when
    intervals_with_0 = 0
    p_values = np.empty(simulations)
    for simulation in range(simulations):
        values = drawn_runs(rng, targets, seeds, effects)
        _, low, high = over_runs(values, 0.95)
        intervals_with_0 += low <= 0 <= high
        p_values[simulation] = p_over_runs(values)
    # then
    coverage = intervals_with_0 / simulations
    assert 0.93 < coverage < 0.975
    assert intervals_with_0 == (p_values >= 0.05).sum()
    # and small p, which Holm's correction needs, are as rare as they say
    share_to_0_01 = (p_values <= 0.01).mean()
    share_to_0_001 = (p_values <= 0.001).mean()
    assert share_to_0_01 < 0.02
    assert share_to_0_001 <= 0.004


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_few_seeds_only_objects_are_resampled(seeds):
    effects = Effects(of_objects=1, of_seeds=1, of_both=1)
    values = drawn_runs(np.random.default_rng(1), 3, seeds, effects)
    mean_of_runs = values.mean(axis=(0, 1))
    assert over_runs(values, 0.9) == estimate(mean_of_runs, 0.9)


def test_without_effects_of_objects_the_interval_is_students_over_seeds():
    # given
    seeds = 4
    observed = np.random.default_rng(2).normal(2, 1, seeds)
    same_in_all_replicates = np.repeat(observed[:, None], 101, axis=1)
    values = same_in_all_replicates[None]
    # when
    mean, low, high = over_runs(values, 0.95)
    p = p_over_runs(values)
    # then
    test = stats.ttest_1samp(observed, 0)
    expected_low, expected_high = test.confidence_interval(0.95)
    assert mean == pytest.approx(observed.mean())
    assert low == pytest.approx(expected_low)
    assert high == pytest.approx(expected_high)
    assert p == pytest.approx(test.pvalue)


def test_without_effects_of_seeds_the_standard_error_is_that_of_the_objects():
    # given
    values_of_each_run = np.random.default_rng(3).normal(size=401)
    values = np.broadcast_to(values_of_each_run, (2, 3, 401))
    # when
    mean, low, high = over_runs(values, 0.95)
    # then
    observed = values_of_each_run[0]
    standard_error = values_of_each_run[1:].std()
    reach = stats.norm.ppf(0.975) * standard_error
    assert mean == pytest.approx(observed)
    assert low == pytest.approx(observed - reach)
    assert high == pytest.approx(observed + reach)


def test_the_interval_excludes_zero_where_p_is_below_its_level():
    rng = np.random.default_rng(4)
    effects = Effects(of_objects=1, of_seeds=0.3, of_both=0.5)
    significant_results = 0
    for _ in range(50):
        runs_around_0 = drawn_runs(rng, 2, 3, effects, replicates=100)
        values = runs_around_0 + rng.normal(0, 0.3)
        _, low, high = over_runs(values, 0.9)
        excludes_0 = low > 0 or high < 0
        is_significant = p_over_runs(values) < 0.1
        assert is_significant == excludes_0
        significant_results += is_significant
    assert 0 < significant_results < 50


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
    # given
    effects = Effects(of_objects=1, of_seeds=1, of_both=1)
    accuracies = 98.5 + drawn_runs(np.random.default_rng(6), 1, 3, effects)
    # when
    mean, low, high = over_runs(accuracies, 0.95, LIMITS)
    # then
    mean_without_limits, low_without_limits, high_without_limits = over_runs(accuracies, 0.95)
    assert high_without_limits > 100
    assert high == 100
    assert mean == mean_without_limits
    assert low == low_without_limits


def test_runs_that_never_differ_have_p_one_and_no_width():
    values = np.zeros((2, 3, 50))
    mean, low, high = over_runs(values, 0.95)
    assert p_over_runs(values) == 1
    assert mean == 0
    assert low == 0
    assert high == 0


def test_replicates_without_objects_are_left_out():
    # given
    replicate = 7
    effects = Effects(of_objects=1, of_seeds=0.3, of_both=0.5)
    values = drawn_runs(np.random.default_rng(5), 2, 3, effects)
    values_with_hole = values.copy()
    values_with_hole[0, 1, replicate] = np.nan
    values_without_replicate = np.delete(values, replicate, axis=2)
    # then
    expected = over_runs(values_without_replicate, 0.95)
    assert over_runs(values_with_hole, 0.95) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_over_seeds_is_students(n):
    # given
    values = np.random.default_rng(n).normal(3, 2, n)
    # when
    seeds, deviation, low, high = spread(values, 0.9)
    # then
    expected_low, expected_high = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert seeds == n
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert low == pytest.approx(expected_low)
    assert high == pytest.approx(expected_high)


def test_one_seed_tells_nothing_of_others():
    seeds, deviation, low, high = spread(np.array([4.0]), 0.95)
    assert seeds == 1
    assert np.isnan(deviation)
    assert np.isnan(low)
    assert np.isnan(high)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_are_percentiles_on_both_sides(confidence):
    replicates = np.random.default_rng(0).normal(size=501)
    _, low, high = estimate(np.r_[99, replicates], confidence)
    outside = (1 - confidence) / 2
    assert np.mean(replicates < low) == pytest.approx(outside, abs=0.003)
    assert np.mean(replicates > high) == pytest.approx(outside, abs=0.003)


def test_draws_are_all_objects_once_then_numpys_multinomials():
    rng = np.random.default_rng(7)
    expected_draws = [rng.multinomial(30, np.full(30, 1 / 30)) for _ in range(5)]
    weights = object_weights(30, 5, seed=7)
    observed, *draws = weights
    assert (observed == 1).all()
    assert np.array_equal(draws, expected_draws)
    weights_of_fewer = object_weights(30, 3, seed=7)
    assert (weights_of_fewer == weights[:4]).all(), "more draws leave the first as they are"
    assert (object_weights(30, 5, seed=8) != weights).any()
