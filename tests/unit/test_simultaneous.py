"""Simultaneous intervals of differences from a reference.

They are compared with plain loops; their coverage is simulated.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from rib.analyses.comparison.simultaneous import simultaneous_intervals, smallest_clear_difference
from rib.analyses.comparison.tables import differences_from, smallest_difference
from rib.schema.run import PRETRAINED
from rib.statistics.bootstrap import object_weights, p_over_runs
from rib.statistics.contrast import Measure, Measured
from rib.statistics.tests import sign_flip_p

CONFIDENCE = 0.95


def random_differences(methods=3, targets=2, seeds=1, replicates=200, objects=60, random_seed=0):
    """Differences (methods, targets, seeds, 1 + replicates) from a first method.

    All have random right answers.
    """
    rng = np.random.default_rng(random_seed)
    percent_right = 100.0 * (rng.random((1 + methods, targets, seeds, objects)) < 0.5)
    weights = object_weights(objects, replicates, random_seed) / objects
    accuracies = percent_right @ weights.T
    first_method = accuracies[:1]
    other_methods = accuracies[1:]
    return other_methods - first_method


def of_one_method(seeds=1):
    """Random differences (targets, seeds, 1 + replicates) of one method from another."""
    (differences,) = random_differences(methods=1, seeds=seeds)
    return differences


def intervals_of(differences, confidence=CONFIDENCE):
    """The simultaneous intervals, (methods, 3): observed, low and high of each."""
    return np.transpose(simultaneous_intervals(differences, confidence, seed=0))


def observed_of(intervals):
    """The observed differences among the intervals of `intervals_of`."""
    observed, _, _ = intervals.T
    return observed


def lengths_of(intervals):
    """Lengths of the intervals of `intervals_of`."""
    _, low, high = intervals.T
    return high - low


def bootstrap_error(differences):
    """Standard deviation over replicates of the mean of one method's differences.

    Args:
        differences: (targets, seeds, 1 + replicates).
    """
    _, *means_of_replicates = differences.mean(axis=(0, 1))
    return np.std(means_of_replicates)


def apart_by_seed(*distances):
    """What is added to the differences of each seed, of which the mean stays."""
    assert sum(distances) == 0
    return np.array(distances)[:, None]


def slow_intervals(differences, confidence):
    """The max-t bootstrap with one seed, one number after the other."""
    methods, targets, seeds, columns = differences.shape
    replicates = range(1, columns)

    def mean(method, column):
        sum_of_runs = 0
        for target, seed in itertools.product(range(targets), range(seeds)):
            sum_of_runs += differences[method, target, seed, column]
        return sum_of_runs / (targets * seeds)

    error_of_method = []
    for method in range(methods):
        error_of_method.append(np.std([mean(method, replicate) for replicate in replicates]))

    largest_ratios = []
    for replicate in replicates:
        ratios = []
        for method in range(methods):
            deviation = mean(method, replicate) - mean(method, 0)
            ratios.append(abs(deviation) / error_of_method[method])
        largest_ratios.append(max(ratios))
    critical_ratio = np.quantile(largest_ratios, confidence)

    intervals = []
    for method in range(methods):
        observed = mean(method, 0)
        reach = critical_ratio * error_of_method[method]
        intervals.append((observed, observed - reach, observed + reach))
    return np.array(intervals)


@pytest.mark.parametrize("seeds", [1, 2])
def test_simultaneous_intervals_are_those_of_plain_loops(seeds):
    differences = random_differences(seeds=seeds)
    assert intervals_of(differences, 0.9) == pytest.approx(slow_intervals(differences, 0.9))


def test_more_methods_make_every_interval_wider_and_none_is_moved():
    differences = random_differences(methods=12)
    of_two = intervals_of(differences[:2])
    of_two_among_twelve = intervals_of(differences)[:2]
    assert observed_of(of_two).tolist() == observed_of(of_two_among_twelve).tolist()
    assert (lengths_of(of_two_among_twelve) > lengths_of(of_two)).all()


def test_a_method_that_equals_the_reference_has_an_interval_of_no_length_and_widens_no_other():
    differences = random_differences()
    equal_method = np.zeros_like(differences[:1])
    *others, of_equal_method = intervals_of(np.concatenate([differences, equal_method]))
    assert (of_equal_method == 0).all()
    assert np.array(others) == pytest.approx(intervals_of(differences))


def test_replicates_without_an_object_of_a_dataset_are_left_out():
    differences = random_differences()
    replicate = 5
    with_empty_replicate = differences.copy()
    with_empty_replicate[..., replicate] = np.nan
    without_replicate = np.delete(differences, replicate, axis=-1)
    expected = intervals_of(without_replicate)
    assert intervals_of(with_empty_replicate) == pytest.approx(expected)


def test_from_three_seeds_on_the_spread_of_trainings_makes_intervals_wider():
    differences = random_differences(seeds=3)
    of_close_trainings = intervals_of(differences)
    of_spread_trainings = intervals_of(differences + apart_by_seed(-30.0, 0, 30))
    assert observed_of(of_spread_trainings) == pytest.approx(observed_of(of_close_trainings))
    assert (lengths_of(of_spread_trainings) > 1.5 * lengths_of(of_close_trainings)).all()


# The smallest difference that is found


def test_with_one_seed_the_smallest_difference_is_that_of_a_normal_test():
    differences = of_one_method()
    error = bootstrap_error(differences)
    for tests in (1, 10, 378):
        quantile_of_test = stats.norm.ppf(1 - 0.05 / tests / 2)
        quantile_of_power = stats.norm.ppf(0.8)
        expected = error * (quantile_of_test + quantile_of_power)
        assert smallest_clear_difference(differences, tests, CONFIDENCE) == pytest.approx(expected)


def test_the_smallest_difference_grows_with_the_number_of_tests_and_with_the_spread_of_trainings():
    differences = of_one_method(seeds=3)
    numbers_of_tests = (1, 6, 28, 378)
    smallest = [
        smallest_clear_difference(differences, tests, CONFIDENCE) for tests in numbers_of_tests
    ]
    for with_fewer_tests, with_more_tests in itertools.pairwise(smallest):
        assert with_fewer_tests < with_more_tests

    of_close_trainings = smallest_clear_difference(differences, 28, CONFIDENCE)
    spread_differences = differences + apart_by_seed(-30.0, 0, 30)
    of_spread_trainings = smallest_clear_difference(spread_differences, 28, CONFIDENCE)
    assert of_spread_trainings > 1.5 * of_close_trainings

    no_differences = np.zeros_like(differences)
    assert smallest_clear_difference(no_differences, 28, CONFIDENCE) == 0


# Reference of a ranking


def mri_of(means, seeds=1, objects=100, replicates=100):
    """mRI of methods m0, m1 and so on in two targets; the pretrained model is last.

    Args:
        means: of each method, observed.
    """
    targets = 2
    rng = np.random.default_rng(1)
    of_objects = rng.normal(0, 20, (len(means), targets, seeds, objects))
    deviations = of_objects - of_objects.mean(axis=-1, keepdims=True)
    weights = object_weights(objects, replicates, 0) / objects
    units = {}
    for number, mean in enumerate(means):
        units[f"m{number}"] = Measured((mean + deviations[number]) @ weights.T)
    units[PRETRAINED] = Measured(np.zeros((targets, seeds, 1 + replicates)))
    return Measure("mri", "mri", units)


def values_of(mri):
    """(targets, seeds, 1 + replicates) of each method and, last, of the pretrained model."""
    return [of_unit.values for of_unit in mri.units.values()]


def test_differences_are_from_the_reference_and_it_has_none_itself():
    mri = mri_of([3.0, 7.0, 1.0])
    table = differences_from(mri, ["m0", "m1", "m2"], "m1", CONFIDENCE, 0)
    table = table.set_index("method")
    assert set(table["reference"]) == {"m1"}
    assert table["difference"].to_dict() == pytest.approx({"m0": 3 - 7, "m1": 0, "m2": 1 - 7})
    assert table.loc["m1", ["diff_low", "diff_high"]].isna().all()

    values_of_m0, values_of_m1, values_of_m2, _ = values_of(mri)
    differences = np.array([values_of_m0 - values_of_m1, values_of_m2 - values_of_m1])
    _, low, high = simultaneous_intervals(differences, CONFIDENCE, 0)
    assert table.loc[["m0", "m2"], "diff_low"].tolist() == pytest.approx(low)
    assert table.loc[["m0", "m2"], "diff_high"].tolist() == pytest.approx(high)


@pytest.mark.parametrize("compare_to", [PRETRAINED, "m1", "unknown"])
def test_the_pretrained_model_takes_the_place_of_a_reference_without_a_rank(compare_to):
    """m1 has mRI, but is not ranked: it is underfitted."""
    mri = mri_of([3.0, 7.0, 1.0])
    table = differences_from(mri, ["m0", "m2"], compare_to, CONFIDENCE, 0)
    assert set(table["reference"]) == {PRETRAINED}
    assert table["difference"].tolist() == pytest.approx([3, 1])
    assert table[["diff_low", "diff_high"]].notna().all(axis=None)


def test_without_ranked_methods_there_are_no_differences():
    mri = mri_of([3.0])
    assert differences_from(mri, [], "m0", CONFIDENCE, 0).empty
    of_reference_alone = differences_from(mri, ["m0"], "m0", CONFIDENCE, 0)
    assert of_reference_alone["method"].tolist() == ["m0"]
    assert of_reference_alone["diff_low"].isna().all()


def test_the_smallest_difference_is_the_median_over_pairs_of_ranked_methods():
    # given that m2 is not ranked
    mri = mri_of([3.0, 7.0, 1.0, 5.0])
    values_of_m0, values_of_m1, _, values_of_m3, _ = values_of(mri)
    tests = 6
    # when
    smallest = smallest_difference(mri, ["m0", "m1", "m3"], tests, CONFIDENCE)
    # then
    smallest_of_pairs = [
        smallest_clear_difference(values_of_m0 - values_of_m1, tests, CONFIDENCE),
        smallest_clear_difference(values_of_m0 - values_of_m3, tests, CONFIDENCE),
        smallest_clear_difference(values_of_m1 - values_of_m3, tests, CONFIDENCE),
    ]
    assert smallest == pytest.approx(np.median(smallest_of_pairs))
    assert np.isnan(smallest_difference(mri, ["m0"], 1, CONFIDENCE))


def test_methods_that_are_right_on_the_same_images_say_nothing_of_the_smallest_difference():
    """As where all are right on every image.

    No difference has been seen, so that 0 would be a promise.
    """
    mri = mri_of([3.0, 3.0, 1.0])
    values_of_m0, values_of_m1, *_ = values_of(mri)
    values_of_m1[:] = values_of_m0
    assert np.isnan(smallest_difference(mri, ["m0", "m1"], 1, CONFIDENCE))
    of_pair_that_differs = smallest_difference(mri, ["m0", "m2"], 3, CONFIDENCE)
    of_all_pairs = smallest_difference(mri, ["m0", "m1", "m2"], 3, CONFIDENCE)
    assert of_all_pairs == pytest.approx(of_pair_that_differs)


# What intervals promise


class Benchmark:
    """Simulated answers of methods, whose true accuracies follow from a probit model.

    An object has an ability of its own, a method an effect on each object (deviation 0.5), a
    training (method, target and seed) one on all, and each answer noise; it is right if their sum
    is above 0.
    """

    variance_of_answers = 1 + 0.5**2 + 1

    def __init__(self, levels, seeds, of_training, objects=200, targets=3, replicates=1000):
        """With methods of these levels.

        Args:
            of_training: deviation of the effects of trainings.
        """
        self.levels = np.array(levels)
        self.of_training = of_training
        self.shape = (len(levels), targets, seeds, objects)
        self.seeds = seeds
        self.objects = objects
        self.weights = object_weights(objects, replicates, 0).astype(np.float32).T / objects

    def draw(self, rng):
        """Answers (methods, targets, seeds, objects) in percent, and the methods' true accuracies.

        With fewer than three seeds the accuracies are those of the trained networks.
        """
        methods, targets, seeds, objects = self.shape
        trainings = self.of_training * rng.normal(size=(methods, targets, seeds, 1))
        level_of_network = self.levels[:, None, None, None] + trainings
        abilities = rng.normal(size=objects)
        effects_on_objects = 0.5 * rng.normal(size=(methods, 1, 1, objects))
        noise = rng.normal(size=self.shape)
        is_right = level_of_network + abilities + effects_on_objects + noise > 0
        if seeds < 3:
            accuracies = probit_accuracy(level_of_network, self.variance_of_answers)
            true_accuracies = accuracies.mean(axis=(1, 2, 3))
        else:
            variance = self.variance_of_answers + self.of_training**2
            true_accuracies = probit_accuracy(self.levels, variance)
        return 100.0 * is_right, true_accuracies

    def accuracies(self, answers):
        """Accuracies (methods, targets, seeds, 1 + replicates)."""
        return (answers.astype(np.float32) @ self.weights).astype(float)

    def draw_difference(self, rng):
        """Accuracies of the second method minus those of the first, of new answers."""
        answers, _ = self.draw(rng)
        of_first, of_second = self.accuracies(answers)
        return of_second - of_first


def probit_accuracy(level, variance):
    """Percent of answers that are right where their sum has this mean and variance."""
    return 100 * stats.norm.cdf(level / np.sqrt(variance))


@pytest.mark.slow
@pytest.mark.parametrize("methods", [5, 28])
@pytest.mark.parametrize("seeds, of_training", [(1, 0.15), (3, 0.0), (3, 0.15)])
def test_simultaneous_intervals_hold_all_true_differences_as_often_as_they_say(
    methods, seeds, of_training
):
    """Accuracies of 50 to 58 %, 200 objects.

    A training of 0.05 and 0.15 moves them by 1.3 and 4 points.
    """
    rng = np.random.default_rng(methods)
    benchmark = Benchmark(np.linspace(0, 0.3, methods), seeds, of_training)
    simulations = 1000
    covered = 0
    for simulation in range(simulations):
        answers, true_accuracies = benchmark.draw(rng)
        accuracies = benchmark.accuracies(answers)
        differences = accuracies[1:] - accuracies[:1]
        true_differences = true_accuracies[1:] - true_accuracies[0]
        _, low, high = simultaneous_intervals(differences, CONFIDENCE, simulation)
        holds_each = (low <= true_differences) & (true_differences <= high)
        covered += holds_each.all()
    coverage = covered / simulations
    print(f"{methods} methods, {seeds} seeds, training {of_training}: {coverage:.3f}")
    assert 0.92 <= coverage <= 0.98


def p_of_difference(benchmark, rng, random_seed):
    """p of the difference between the two methods of a benchmark, of new answers."""
    if benchmark.seeds >= 3:
        return p_over_runs(benchmark.draw_difference(rng))
    answers, _ = benchmark.draw(rng)
    contributions = answers.mean(axis=(1, 2))[:, None] / benchmark.objects
    pairs = [(0, 1)]
    ((p_of_pair,),) = sign_flip_p(contributions, pairs, 20_000, random_seed)
    return p_of_pair


@pytest.mark.slow
@pytest.mark.parametrize("tests", [15, 378])
@pytest.mark.parametrize("seeds, of_training", [(1, 0.0), (3, 0.1)])
def test_a_true_difference_of_the_smallest_size_is_found_in_about_three_of_four_cases(
    tests, seeds, of_training
):
    # given the smallest difference that is found, from answers of equal methods
    rng = np.random.default_rng(tests)
    equal_methods = Benchmark([0, 0], seeds, of_training, replicates=500)
    smallest_of_draws = []
    for _ in range(100):
        difference = equal_methods.draw_difference(rng)
        smallest_of_draws.append(smallest_clear_difference(difference, tests, CONFIDENCE))
    smallest = np.median(smallest_of_draws)
    # when methods differ by that much
    deviation = np.sqrt(Benchmark.variance_of_answers + of_training**2)
    higher_level = deviation * stats.norm.ppf(0.5 + smallest / 100)
    benchmark = Benchmark([0, higher_level], seeds, of_training, replicates=500)
    simulations = 300
    found = 0
    for simulation in range(simulations):
        found += p_of_difference(benchmark, rng, simulation) <= 0.05 / tests
    power = found / simulations
    # then
    print(
        f"{tests} tests, {seeds} seeds, training {of_training}: {smallest:.1f} points, "
        f"power {power:.3f}"
    )
    assert 0.6 <= power <= 0.95
