"""Simultaneous intervals of differences from a reference.

They are compared with plain loops; their coverage is simulated.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from rib.analysis.bootstrap import object_weights, p_over_runs, variance_of_mean
from rib.analysis.comparison import (
    Column,
    Effects,
    differences_from,
    sign_flip_p,
    smallest_difference,
)
from rib.analysis.simultaneous import simultaneous_intervals, smallest_told
from rib.config.run import PRETRAINED


def drawn_differences(methods=3, targets=2, seeds=1, replicates=200, objects=60, seed=0):
    """Differences (methods, targets, seeds, 1 + replicates) from a first method.

    All have random right answers.
    """
    rng = np.random.default_rng(seed)
    right = 100.0 * (rng.random((1 + methods, targets, seeds, objects)) < 0.5)
    values = right @ (object_weights(objects, replicates, seed) / objects).T
    return values[1:] - values[:1]


def slow_intervals(differences, confidence):
    """The max-t bootstrap with one seed, one number after the other."""
    methods, targets, seeds, columns = differences.shape

    def mean(method, column):
        runs = itertools.product(range(targets), range(seeds))
        return sum(differences[method, target, run, column] for target, run in runs) / (
            targets * seeds
        )

    errors = [np.std([mean(method, b) for b in range(1, columns)]) for method in range(methods)]
    largest = []
    for b in range(1, columns):
        ratios = [abs(mean(m, b) - mean(m, 0)) / errors[m] for m in range(methods)]
        largest.append(max(ratios))
    reach = np.quantile(largest, confidence)
    return [
        (mean(m, 0), mean(m, 0) - reach * errors[m], mean(m, 0) + reach * errors[m])
        for m in range(methods)
    ]


@pytest.mark.parametrize("seeds", [1, 2])
def test_simultaneous_intervals_are_those_of_plain_loops(seeds):
    differences = drawn_differences(seeds=seeds)
    made = np.transpose(simultaneous_intervals(differences, 0.9, seed=0))
    assert made == pytest.approx(np.array(slow_intervals(differences, 0.9)))


def test_of_one_method_the_interval_is_that_of_its_own_deviations():
    differences = drawn_differences(methods=1)
    means = differences.mean(axis=(1, 2))[0]
    reach = np.quantile(np.abs(means[1:] - means[0]), 0.95)
    observed, low, high = (ends[0] for ends in simultaneous_intervals(differences, 0.95, seed=0))
    assert (observed, low, high) == pytest.approx((means[0], means[0] - reach, means[0] + reach))


def test_more_methods_make_every_interval_wider_and_none_is_moved():
    differences = drawn_differences(methods=12)
    few, many = (simultaneous_intervals(part, 0.95, 0) for part in (differences[:2], differences))
    assert (few[0] == many[0][:2]).all()
    assert (many[2][:2] - many[1][:2] > few[2] - few[1]).all()


def test_a_method_that_equals_the_reference_has_an_interval_of_no_length_and_widens_no_other():
    differences = drawn_differences()
    with_equal = np.concatenate([differences, np.zeros_like(differences[:1])])
    made, alone = (
        np.array(simultaneous_intervals(part, 0.95, 0)) for part in (with_equal, differences)
    )
    assert (made[:, -1] == 0).all()
    assert made[:, :-1] == pytest.approx(alone)


def test_replicates_without_an_object_of_a_dataset_are_left_out():
    differences = drawn_differences()
    lost = differences.copy()
    lost[..., 5] = np.nan
    expected = simultaneous_intervals(np.delete(differences, 5, axis=-1), 0.95, 0)
    assert np.array(simultaneous_intervals(lost, 0.95, 0)) == pytest.approx(np.array(expected))


def test_from_three_seeds_on_the_spread_of_trainings_makes_intervals_wider():
    differences = drawn_differences(seeds=3)
    apart = np.array([-30.0, 0, 30])[:, None]  # means over seeds stay
    means = simultaneous_intervals(differences, 0.95, 0)
    spread = simultaneous_intervals(differences + apart, 0.95, 0)
    assert spread[0] == pytest.approx(means[0])
    assert (spread[2] - spread[1] > 1.5 * (means[2] - means[1])).all()


def test_with_one_seed_the_smallest_difference_told_is_that_of_a_normal_test():
    differences = drawn_differences(methods=1)[0]
    error = differences.mean(axis=(0, 1))[1:].std()
    for tests in (1, 10, 378):
        expected = error * (stats.norm.ppf(1 - 0.05 / tests / 2) + stats.norm.ppf(0.8))
        assert smallest_told(differences, tests, 0.95) == pytest.approx(expected)


def test_the_smallest_difference_grows_with_the_number_of_tests_and_with_the_spread_of_trainings():
    differences = drawn_differences(methods=1, seeds=3)[0]
    spread = differences + np.array([-30.0, 0, 30])[:, None]
    told = [smallest_told(differences, tests, 0.95) for tests in (1, 6, 28, 378)]
    assert told == sorted(told) and len(set(told)) == 4
    assert smallest_told(spread, 28, 0.95) > 1.5 * told[2]
    assert smallest_told(np.zeros_like(differences), 28, 0.95) == 0


# Reference of a ranking


def made_effects(means, seeds=1, objects=100, replicates=100):
    """Effects of methods m0, m1 and so on in two targets; the pretrained model is last."""
    rng = np.random.default_rng(1)
    parts = rng.normal(0, 20, (len(means), 2, seeds, objects))
    parts += np.array(means)[:, None, None, None] - parts.mean(axis=-1, keepdims=True)
    parts = np.concatenate([parts, np.zeros_like(parts[:1])])
    values = parts @ (object_weights(objects, replicates, 0) / objects).T
    names = [*(f"m{place}" for place in range(len(means))), PRETRAINED]
    return Effects(names, {None: Column("mri", slice(None))}, values, parts.mean(axis=2) / objects)


def test_differences_are_from_the_reference_and_it_has_none_itself():
    effects = made_effects([3.0, 7.0, 1.0])
    table = differences_from(effects, ["m0", "m1", "m2"], "m1", 0.95, 0).set_index("method")
    assert set(table["reference"]) == {"m1"}
    assert table["difference"].tolist() == pytest.approx([-4, 0, -6])
    assert table.loc["m1", ["diff_low", "diff_high"]].isna().all()
    expected = simultaneous_intervals(effects.values[[0, 2]] - effects.values[1], 0.95, 0)
    assert table.loc[["m0", "m2"], "diff_low"].tolist() == pytest.approx(expected[1])
    assert table.loc[["m0", "m2"], "diff_high"].tolist() == pytest.approx(expected[2])


@pytest.mark.parametrize("compare_to", [PRETRAINED, "m1", "unknown"])
def test_the_pretrained_model_takes_the_place_of_a_reference_without_a_rank(compare_to):
    """m1 is among the effects, but not ranked: its training is unfinished."""
    effects = made_effects([3.0, 7.0, 1.0])
    table = differences_from(effects, ["m0", "m2"], compare_to, 0.95, 0)
    assert set(table["reference"]) == {PRETRAINED}
    assert table["difference"].tolist() == pytest.approx([3, 1])
    assert table[["diff_low", "diff_high"]].notna().all(axis=None)


def test_without_ranked_methods_there_are_no_differences():
    table = differences_from(made_effects([3.0]), [], "m0", 0.95, 0)
    assert not len(table)
    assert differences_from(made_effects([3.0]), ["m0"], "m0", 0.95, 0)["diff_low"].isna().all()


def test_the_smallest_difference_is_the_median_over_pairs_of_ranked_methods():
    effects = made_effects([3.0, 7.0, 1.0, 5.0])
    methods = ["m0", "m1", "m3"]
    places = [0, 1, 3]
    pairs = itertools.combinations(places, 2)
    told = [
        smallest_told(effects.values[one] - effects.values[other], 6, 0.95) for one, other in pairs
    ]
    assert smallest_difference(effects, methods, 6, 0.95) == pytest.approx(sorted(told)[1])
    assert np.isnan(smallest_difference(effects, ["m0"], 1, 0.95))


def test_methods_that_are_right_on_the_same_images_say_nothing_of_what_can_be_told_apart():
    """As where all are right on every image.

    No difference has been seen, so that 0 would be a promise.
    """
    effects = made_effects([3.0, 3.0, 1.0])
    effects.values[1] = effects.values[0]
    assert np.isnan(smallest_difference(effects, ["m0", "m1"], 1, 0.95))
    of_pairs_that_differ = smallest_difference(effects, ["m0", "m2"], 3, 0.95)
    assert smallest_difference(effects, ["m0", "m1", "m2"], 3, 0.95) == pytest.approx(
        of_pairs_that_differ
    )


# What intervals promise


class Benchmark:
    """Simulated answers of methods, whose true accuracies follow from a probit model.

    An object has an ability of its own, a method an effect on each object, a training (method,
    target and seed) one on all, and each answer noise; it is right if their sum is above 0.
    """

    def __init__(self, methods, seeds, of_training, objects=200, targets=3, replicates=1000):
        self.shape = (methods, targets, seeds, objects)
        self.levels = np.linspace(0, 0.3, methods)[:, None, None, None]
        self.of_training = of_training
        self.weights = object_weights(objects, replicates, 0).astype(np.float32).T / objects
        self.objects = objects

    def draw(self, rng):
        """Answers (methods, targets, seeds, objects) in percent, and the methods' true accuracies.

        With fewer than three seeds the accuracies are those of the trained networks.
        """
        methods, targets, seeds, objects = self.shape
        trainings = self.of_training * rng.normal(size=(methods, targets, seeds, 1))
        means = self.levels + trainings
        effects = rng.normal(size=objects) + 0.5 * rng.normal(size=(methods, 1, 1, objects))
        answers = 100.0 * (means + effects + rng.normal(size=self.shape) > 0)
        if seeds < 3:
            networks = 100 * stats.norm.cdf(means / np.sqrt(2.25))
            return answers, networks.mean(axis=(1, 2, 3))
        return answers, 100 * stats.norm.cdf(
            self.levels[:, 0, 0, 0] / np.sqrt(2.25 + self.of_training**2)
        )

    def values(self, answers):
        """Accuracies (methods, targets, seeds, 1 + replicates)."""
        return (answers.astype(np.float32) @ self.weights).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("methods", [5, 15, 28])
@pytest.mark.parametrize("seeds, of_training", [(1, 0.15), (3, 0.0), (3, 0.05), (3, 0.15)])
def test_simultaneous_intervals_hold_all_true_differences_as_often_as_they_say(
    methods, seeds, of_training
):
    """Accuracies of 50 to 58 %, 200 objects.

    A training of 0.05 and 0.15 moves them by 1.3 and 4 points.
    """
    rng, simulated, covered = np.random.default_rng(methods), 1000, 0
    benchmark = Benchmark(methods, seeds, of_training)
    for number in range(simulated):
        answers, true = benchmark.draw(rng)
        values = benchmark.values(answers)
        _, low, high = simultaneous_intervals(values[1:] - values[:1], 0.95, number)
        differences = true[1:] - true[0]
        covered += np.all((low <= differences) & (differences <= high))
    print(f"{methods} methods, {seeds} seeds, training {of_training}: {covered / simulated:.3f}")
    assert 0.92 <= covered / simulated <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("tests", [15, 378])
@pytest.mark.parametrize("seeds, of_training", [(1, 0.0), (3, 0.03), (3, 0.1)])
def test_a_true_difference_of_the_smallest_size_is_told_in_about_three_of_four_cases(
    tests, seeds, of_training
):
    rng, simulated, told = np.random.default_rng(tests), 300, 0
    benchmark = Benchmark(2, seeds, of_training, replicates=500)
    benchmark.levels[:] = 0
    pilot = [benchmark.values(benchmark.draw(rng)[0]) for _ in range(100)]
    smallest = np.median([smallest_told(values[1] - values[0], tests, 0.95) for values in pilot])
    scale = np.sqrt(2.25 + of_training**2)
    benchmark.levels[1] = scale * stats.norm.ppf(0.5 + smallest / 100)
    for number in range(simulated):
        answers, _ = benchmark.draw(rng)
        if seeds < 3:
            parts = answers.mean(axis=(1, 2))[:, None] / benchmark.objects
            p = sign_flip_p(parts, [(0, 1)], 20_000, number)[0, 0]
        else:
            values = benchmark.values(answers)
            p = p_over_runs(values[1] - values[0])
        told += p <= 0.05 / tests
    print(
        f"{tests} tests, {seeds} seeds, training {of_training}: {smallest:.1f} points, "
        f"power {told / simulated:.3f}"
    )
    assert 0.6 <= told / simulated <= 0.95


def test_the_variance_of_few_seeds_is_that_of_objects_alone():
    differences = drawn_differences(methods=1, seeds=2)[0]
    variance = variance_of_mean(differences + np.array([-30.0, 30])[:, None])
    assert variance.error == pytest.approx(differences.mean(axis=(0, 1))[1:].std())
    assert variance.student_weight == 0
