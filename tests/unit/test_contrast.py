"""Tests of differences against independent references: sign flips, Welch, Holm, letters.

What tests promise is shown by simulation.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.statistics import tests
from rib.statistics.bootstrap import object_weights, p_over_runs
from rib.statistics.contrast import Measure, Measured, contrasts
from rib.statistics.tests import few_objects, holm, letters, sign_flip_p, welch_interval
from tiny.tiers import first

# Sign flips


def exact_p(contributions):
    """Over all patterns of signs, written out."""
    patterns = np.array(list(itertools.product((-1, 1), repeat=len(contributions))))
    sums = np.abs(patterns @ contributions)
    return np.mean(sums >= abs(contributions.sum()) - 1e-9)


def tolerance_of(draws):
    """Four standard deviations of a p of 0.5 that is estimated by so many draws."""
    return 4 * np.sqrt(0.25 / draws)


def as_pair(difference):
    """Contributions to two methods of which the second changes nothing, in one column."""
    return np.stack([difference, np.zeros_like(difference)])[:, None]


def p_of(difference, draws, seed):
    """The p of objects' contributions to the difference of two methods."""
    return sign_flip_p(as_pair(difference), [(0, 1)], draws, seed)[0, 0]


def binomial_p(contributions):
    """The exact p of contributions that are all 1 or -1."""
    objects = len(contributions)
    most_signs = (objects + abs(contributions.sum())) / 2
    return 2 * stats.binom.sf(most_signs - 1, objects, 0.5)


@pytest.mark.parametrize("seed", range(2))
def test_p_is_that_of_all_sign_patterns(seed):
    """Whole numbers, so that many patterns tie with the observed one."""
    contributions = np.random.default_rng(seed).integers(-2, 4, 11).astype(float)
    expected = exact_p(contributions)
    by_scipy = stats.permutation_test(
        (contributions,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert by_scipy.pvalue == pytest.approx(expected)
    assert p_of(contributions, 100_000, seed) == pytest.approx(expected, abs=tolerance_of(100_000))


def test_p_counts_the_observed_draw_and_is_one_where_nothing_differs():
    assert p_of(np.ones(60), 1000, 0) == pytest.approx(1 / 1001)
    alike = np.stack([np.arange(20.0)] * 2)[:, None]
    assert sign_flip_p(alike, [(0, 1)], 1000, 0)[0, 0] == 1
    assert sign_flip_p(np.zeros((2, 1, 20)), [(0, 1)], 1000, 0)[0, 0] == 1


def test_objects_to_which_both_methods_owe_the_same_do_not_change_p():
    """Each pair is compared as if the objects on which its methods agree were not there."""
    rng = np.random.default_rng(3)
    first_difference = rng.integers(-2, 4, 11).astype(float)
    second_difference = rng.integers(-3, 3, 9).astype(float)
    shared = rng.normal(size=(1, 60))
    contributions = np.repeat(shared, 3, axis=0)
    contributions[1, 5:16] -= first_difference
    contributions[2, 40:49] -= second_difference
    p = sign_flip_p(contributions[:, None], [(0, 1), (0, 2)], 100_000, 0)
    expected = [exact_p(first_difference), exact_p(second_difference)]
    assert p[:, 0] == pytest.approx(expected, abs=tolerance_of(100_000))


def test_p_does_not_depend_on_how_many_signs_are_in_memory(monkeypatch):
    contributions = np.random.default_rng(0).normal(size=(3, 2, 70))
    pairs = [(0, 1), (0, 2), (1, 2)]
    at_once = sign_flip_p(contributions, pairs, 5000, 1)
    monkeypatch.setattr(tests, "BLOCK_BYTES", 8 * (70 + 12) * 33)
    assert (sign_flip_p(contributions, pairs, 5000, 1) == at_once).all()


def test_p_is_uniform_where_methods_can_be_exchanged():
    """2,000 pairs of methods without a difference; objects differ in how much they say."""
    rng = np.random.default_rng(0)
    contributions = rng.normal(size=(2, 2000, 200)) * rng.gamma(1, size=200)
    (p,) = sign_flip_p(contributions, [(0, 1)], 4000, 1)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_p_of_counts_rejects_no_true_hypothesis_too_often():
    """Answers right or wrong: differences tie often, which makes the test careful."""
    rng = np.random.default_rng(1)
    ability = rng.normal(size=(2000, 200))
    is_right = ability[None] + rng.normal(size=(2, 2000, 200)) > 0.5
    (p,) = sign_flip_p(is_right.astype(float), [(0, 1)], 4000, 1)
    assert 0.03 < np.mean(p <= 0.05) < 0.06


def test_p_of_few_objects_is_noted_since_rare_large_gains_make_it_small():
    """Mean difference 0: a gain on 3 % of objects makes up for small losses on the others."""
    rng = np.random.default_rng(2)
    rejected = {}  # by number of objects, the share of 1000 tests, by signs and over seeds
    for objects in (40, 1000):
        contributions = np.where(rng.random((1000, objects)) < 0.03, 0.97 / 0.03, -1.0)
        against_nothing = np.stack([contributions, np.zeros_like(contributions)])
        (p_of_signs,) = sign_flip_p(against_nothing, [(0, 1)], 1000, 1)
        # (tests, 1 + replicates), alike in three seeds
        replicates = contributions @ object_weights(objects, 200, 1).T / objects
        p_over_seeds = [
            p_over_runs(np.stack([replicates_of_test] * 3)[None])
            for replicates_of_test in replicates
        ]
        p_of_both = np.array([p_of_signs, p_over_seeds])
        rejected[objects] = np.mean(p_of_both <= 0.05, axis=1)
        is_noted = bool(few_objects(pd.DataFrame({"objects": [objects]})))
        assert is_noted == (objects < 100)
    assert (rejected[40] > 0.2).all()
    assert rejected[1000] == pytest.approx(0.05, abs=0.025)


@pytest.mark.parametrize("objects", first([tests.MANY_OBJECTS, 40_000]))
def test_of_many_objects_p_is_normal_and_as_exact_as_draws(objects):
    """Equal parts have a binomial number of positive signs.

    Parts of several sizes are compared with draws.
    """
    rng = np.random.default_rng(objects)
    for surplus in (0, 10, int(np.sqrt(objects)), int(2.2 * np.sqrt(objects)) // 2 * 2):
        gains = (objects + surplus) // 2
        contributions = np.repeat([1.0, -1.0], [gains, objects - gains])
        expected = min(1, binomial_p(contributions))
        assert p_of(contributions, 0, 0) == pytest.approx(expected, rel=0.02)

    sizes = rng.choice([0.3, 0.5, 1.0], 2 * objects)
    contributions = sizes * rng.choice([-1, 1], 2 * objects)
    contributions[: int(1.2 * np.sqrt(objects))] = 1
    drawn_sums = np.zeros(20_000)
    for size, number in zip(*np.unique(np.abs(contributions), return_counts=True), strict=True):
        drawn_sums += size * (2.0 * rng.binomial(number, 0.5, len(drawn_sums)) - number)
    drawn_p = np.mean(np.abs(drawn_sums) >= abs(contributions.sum()))
    assert p_of(contributions, 0, 0) == pytest.approx(drawn_p, abs=0.02)


def test_pairs_of_which_few_objects_differ_are_drawn_whatever_the_others():
    """A pair's p doesn't depend on the pairs beside it, except for the draws."""
    rng = np.random.default_rng(6)
    contributions = rng.normal(size=(3, 2, 6000))
    contributions[1] = contributions[0]
    contributions[1, :, :9] += 1  # nine objects differ
    pairs = [(0, 1), (0, 2), (1, 2)]
    p = sign_flip_p(contributions, pairs, 20_000, 0)
    assert p[0] == pytest.approx(2 / 2**9, abs=0.002)
    assert (p[1:] == sign_flip_p(contributions, pairs[1:], 0, 0)).all()


def test_parts_as_small_as_rounding_errors_are_ties():
    """The same sum in another order is as large as the observed one."""
    contributions = np.array([0.1, 0.2, 0.3, -0.6 + 1e-13])
    assert p_of(contributions, 200, 0) == 1
    assert p_of(contributions * 1e-6, 200, 0) == 1


def test_signs_are_drawn_for_every_object_and_draw():
    """Of one object the sign changes nothing.

    Of 64 and 65 objects that are alike, p is that of as many throws of a coin.
    """
    assert p_of(np.array([2.0]), 500, 0) == 1
    for objects in (63, 64, 65, 130):
        contributions = np.ones(objects)
        contributions[: objects // 2 - 5] = -1
        p = p_of(contributions, 20_000, 1)
        assert p == pytest.approx(binomial_p(contributions), abs=tolerance_of(20_000))
    p_of_other_seed = p_of(contributions, 20_000, 2)
    assert p_of_other_seed != p
    assert p_of_other_seed == pytest.approx(p, abs=0.02)


# Welch


def test_welchs_interval_is_that_of_its_formulas():
    """Of the variances of both means, as Welch and Satterthwaite wrote them down."""
    first = np.array([3.0, 5.5, 4.0, 9.0])
    second = np.array([1.0, 1.5, 2.5])
    variances_of_means = np.array([first.var(ddof=1) / 4, second.var(ddof=1) / 3])
    sum_of_variances = variances_of_means.sum()
    freedom = sum_of_variances**2 / (variances_of_means**2 / np.array([3, 2])).sum()
    difference = first.mean() - second.mean()
    error = np.sqrt(sum_of_variances)
    reach = stats.t.ppf(0.975, freedom) * error
    interval = welch_interval(first, second, 0.95)
    assert interval.freedom == pytest.approx(freedom)
    assert (interval.low, interval.high) == pytest.approx((difference - reach, difference + reach))
    assert interval.p == pytest.approx(2 * stats.t.sf(difference / error, freedom))


def test_networks_that_are_all_alike_have_no_test():
    interval = welch_interval(np.array([5.0, 5.0]), np.array([4.0, 4.0]), 0.95)
    assert (interval.low, interval.high) == (1, 1)
    assert np.isnan(interval.freedom)
    assert np.isnan(interval.p)


# Holm and letters


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_the_closure_of_bonferroni(seed):
    """A hypothesis is rejected when Bonferroni rejects every set of hypotheses that holds it."""
    p = np.random.default_rng(seed).random(6) ** 3
    sets = []
    for size in range(1, 7):
        sets += itertools.combinations(range(6), size)
    expected = []
    for i in range(6):
        bonferroni = [min(1, len(tests) * min(p[list(tests)])) for tests in sets if i in tests]
        expected.append(max(bonferroni))
    assert holm(p) == pytest.approx(expected)

    with_a_pair_without_a_test = np.insert(p, 2, np.nan)
    expected_with_nan = np.insert(expected, 2, np.nan)
    assert holm(with_a_pair_without_a_test) == pytest.approx(expected_with_nan, nan_ok=True)


def test_units_share_a_letter_if_and_only_if_they_do_not_differ_clearly():
    rng = np.random.default_rng(0)
    for methods in (1, 2, 3, 5, 8):
        for share in (0.0, 0.3, 0.7, 1.0):
            upper = np.triu(rng.random((methods, methods)) < share, 1)
            tied = upper | upper.T | np.eye(methods, dtype=bool)

            displayed = letters(tied)

            assert all(displayed)
            for method, other_method in itertools.combinations(range(methods), 2):
                shared_letters = set(displayed[method]) & set(displayed[other_method])
                assert bool(shared_letters) == tied[method, other_method], (tied, displayed)


def test_more_groups_than_letters_have_a_number():
    displayed = letters(np.eye(30, dtype=bool))
    assert displayed[:2] == ["a", "b"]
    assert displayed[26:28] == ["a1", "b1"]
    assert len(set(displayed)) == 30


# Contrasts


def test_a_contrast_is_a_unit_minus_the_other_with_holm_over_its_family():
    """Two measures of three units; b has no test, and a merge over seeds (c) has one seed."""
    rng = np.random.default_rng(0)
    values = {unit: rng.normal(size=(2, 3, 51)) for unit in "ab"}
    values["c"] = rng.normal(size=(2, 1, 51))
    units = {unit: Measured(of_unit) for unit, of_unit in values.items()}
    measures = [Measure("x", "first family", units), Measure("y", "second family", units)]
    p = np.array([[0.01, np.nan], [0.02, 0.03]])

    table = contrasts(measures, [("b", "a"), ("a", "c")], p, 0.9)

    assert table["unit"].tolist() == ["b", "a"] * 2
    assert table["other_unit"].tolist() == ["a", "c"] * 2
    assert table["measure"].tolist() == ["x", "x", "y", "y"]
    assert table["p_holm"].tolist() == pytest.approx([0.01, np.nan, 0.04, 0.04], nan_ok=True)
    means = {unit: of_unit.mean(axis=(0, 1)) for unit, of_unit in values.items()}
    expected = [means["b"][0] - means["a"][0], means["a"][0] - means["c"][0]]
    assert table["difference"].tolist() == pytest.approx(expected * 2)
    _, *draws = means["a"] - means["c"]
    with_a_merge = table.loc[1, ["ci_low", "ci_high"]].tolist()
    assert with_a_merge == pytest.approx(np.percentile(draws, [5, 95]))
    assert table["seeds"].tolist() == [3, 1] * 2
