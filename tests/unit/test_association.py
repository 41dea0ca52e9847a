"""Correlations, their permutation tests and Mantel's.

They are compared with scipy and with loops over every permutation.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.distances import association
from rib.statistics.fit import read_table
from rib.statistics.writing import write_tables

NAMES = ["a", "b", "c", "d", "e"]
TARGETS = ["a", "b", "c", "d"]
STATISTICS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def permuted_p(x, y, ranks, orders, exact):
    """The correlation of two lists of numbers and its p, see `association.permuted_p`."""
    (correlation,), (p,) = association.permuted_p(x.__getitem__, y[None], orders, exact, ranks)
    return correlation, p


@pytest.mark.parametrize("statistic", STATISTICS)
def test_correlations_and_their_p_are_those_of_every_permutation(statistic):
    rng = np.random.default_rng(0)
    without_ties = rng.normal(size=(2, 6))
    with_ties = rng.integers(0, 4, (2, 6)).astype(float)
    correlate = STATISTICS[statistic]
    orders, exact = association.permutations(6, seed=0)
    for x, y in (without_ties, with_ties):
        correlation, p = permuted_p(x, y, statistic == "spearman", orders, exact)
        assert correlation == pytest.approx(correlate(x, y).statistic)
        permuted = [
            abs(correlate(np.array(order), y).statistic) for order in itertools.permutations(x)
        ]
        assert p == pytest.approx(np.mean(np.array(permuted) >= abs(correlation) - 1e-9))


def test_few_permutations_are_all_tried_and_many_are_drawn(monkeypatch):
    # few
    orders, exact = association.permutations(5, seed=0)
    assert exact
    assert len({tuple(order) for order in orders}) == 120
    assert math.factorial(9) <= association.MOST < math.factorial(10)
    most_orders, _ = association.permutations(9, seed=0)
    assert len(most_orders) == math.factorial(9)
    # many
    monkeypatch.setattr(association, "DRAWS", 500)
    monkeypatch.setattr(association, "MOST", math.factorial(6))
    _, exact_of_six = association.permutations(6, seed=0)
    assert exact_of_six
    _, exact_of_seven = association.permutations(7, seed=0)
    assert not exact_of_seven
    orders, exact = association.permutations(10, seed=3)
    assert not exact
    assert orders.shape == (500, 10)
    assert (np.sort(orders) == np.arange(10)).all()
    orders_again, _ = association.permutations(10, seed=3)
    assert (orders == orders_again).all()
    orders_of_another_seed, _ = association.permutations(10, seed=4)
    assert (orders != orders_of_another_seed).any()
    x = np.arange(10.0)
    correlation, p = permuted_p(x, x, False, orders, exact)
    assert correlation == pytest.approx(1)
    assert p == pytest.approx(1 / 501), "never 0"


@pytest.mark.parametrize("ranks", [False, True])
def test_p_is_uniform_where_there_is_no_association(ranks):
    rng = np.random.default_rng(2)
    orders, exact = association.permutations(5, seed=0)
    x = rng.normal(size=5)
    y = rng.normal(size=(3000, 5))
    _, p = association.permuted_p(x.__getitem__, y, orders, exact, ranks)
    for level in (0.05, 0.1, 0.25, 0.5):
        # of 120 orders and their mirror images p is a multiple of 1/120; it is never too small too
        # often
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level / 3000)
    if not ranks:  # without ties it is uniform on its steps
        assert np.mean(p <= 0.25) == pytest.approx(0.25, abs=0.025)
        assert np.mean(p) == pytest.approx(0.5, abs=0.03)


@pytest.mark.thorough
@pytest.mark.parametrize("ranks", [False, True])
def test_intervals_cover_the_true_correlation(ranks):
    """Of normal pairs with correlation 0.5; Spearman's is then 6/pi arcsin(1/4)."""
    rng = np.random.default_rng(3)
    truth = 0.5
    n = 8
    trials = 2000
    true_correlation = truth
    correlate = stats.pearsonr
    if ranks:
        true_correlation = 6 / np.pi * np.arcsin(truth / 2)
        correlate = stats.spearmanr
    hits = 0
    for x, noise in rng.normal(size=(trials, 2, n)):
        y = truth * x + np.sqrt(1 - truth**2) * noise
        low, high = association.interval(correlate(x, y).statistic, n, 0.95, ranks)
        is_unknown = not low <= high
        hits += is_unknown or low <= true_correlation <= high
    assert hits / trials == pytest.approx(0.95, abs=0.02)


def test_the_interval_is_scipys_and_absent_where_nothing_is_known():
    x, y = np.random.default_rng(4).normal(size=(2, 9))
    pearson = stats.pearsonr(x, y)
    interval = association.interval(pearson.statistic, 9, 0.9, ranks=False)
    assert interval == pytest.approx(tuple(pearson.confidence_interval(0.9)))
    for correlation, n in ((0.5, 3), (1.0, 5), (-1.0, 5), (np.nan, 5)):
        assert np.isnan(association.interval(correlation, n, 0.95, ranks=True)).all()


@pytest.mark.parametrize(
    ("value", "n", "confidence", "expected"),
    [
        # artanh(0.6) = 0.693147; its variance 1.18 / 7 (Bonett & Wright 2000, equation 3); a
        # normal quantile
        (0.6, 10, 0.95, (0.693147 - 1.959964 * 0.410575, 0.693147 + 1.959964 * 0.410575)),
        (0.0, 4, 0.95, (-1.959964, 1.959964)),
    ],
)
def test_the_interval_of_a_rank_correlation_is_that_of_bonett_and_wright(
    value, n, confidence, expected
):
    assert association.interval(value, n, confidence, ranks=True) == pytest.approx(
        tuple(np.tanh(expected)), abs=5e-6
    )


@dataclass(frozen=True)
class TablesOfRuns:
    """The tables that are compared."""

    distances: pd.DataFrame
    accuracy: pd.DataFrame
    ri: pd.DataFrame

    def association(self, **choices):
        """Their association, with other choices than CHOICES."""
        return association.association_table(
            self.distances, self.accuracy, self.ri, **{**CHOICES, **choices}
        )

    def distance(self, kind, i, j):
        """The distance of two datasets, in any order."""
        of_kind = self.distances[self.distances["distance"] == kind]
        forward = of_kind[(of_kind["first"] == i) & (of_kind["second"] == j)]
        backward = of_kind[(of_kind["first"] == j) & (of_kind["second"] == i)]
        (distance,) = [*forward["value"], *backward["value"]]
        return distance

    def change(self, method, i, j):
        """The mean change of accuracy on j of a method's runs on i."""
        on_dataset = self.accuracy[self.accuracy["dataset"] == j]
        before = on_dataset[on_dataset["method"] == "pretrained"]["accuracy"].item()
        after = on_dataset[(on_dataset["method"] == method) & (on_dataset["target"] == i)]
        return after["accuracy"].mean() - before

    def mean_ri(self):
        """Mean RI over seeds by method and target."""
        return self.ri.groupby(["method", "target"])["ri"].mean()


@pytest.fixture
def tables():
    """Two methods of one model, two seeds: random distances and accuracies.

    `val` is in distribution.
    """
    rng = np.random.default_rng(5)
    datasets = [*NAMES, "val"]
    distances = []
    for kind in ("otdd", "ncd"):
        for first, second in itertools.combinations(datasets, 2):
            distances.append(("m", first, second, kind, rng.random()))
    runs = [("pretrained", "none", 0), *itertools.product(("ft", "lwf"), TARGETS, (0, 1))]
    accuracies = []
    for method, target, seed in runs:
        for dataset in datasets:
            accuracies.append(("m", method, target, "all", seed, dataset, 100 * rng.random()))
    run_columns = ["model", "method", "target", "size", "seed"]
    accuracy = pd.DataFrame(accuracies, columns=[*run_columns, "dataset", "accuracy"])
    fine_tuned = accuracy[accuracy["method"] != "pretrained"]
    ri = fine_tuned.groupby(run_columns)["accuracy"].mean().rename("ri").reset_index()
    return TablesOfRuns(
        pd.DataFrame(distances, columns=["model", "first", "second", "distance", "value"]),
        accuracy,
        ri,
    )


CHOICES = {
    "targets": TARGETS,
    "ood_datasets": NAMES,
    "in_distribution": "val",
    "pairs": True,
    "confidence": 0.95,
    "seed": 0,
}


def without_index(table):
    """A table whose lines are numbered anew."""
    return table.reset_index(drop=True)


# What a statistic correlates: numbers or their ranks.
PREPARED = {"pearson": np.array, "spearman": stats.rankdata}


def test_the_mantel_test_of_pairs_is_a_loop_over_renamed_datasets(tables):
    table = tables.association().query("level == 'pairs'")
    assert len(table) == 2 * 2 * 2
    pairs = [(i, j) for i in TARGETS for j in NAMES if i != j]
    for line in table.itertuples():
        prepared = PREPARED[line.statistic]
        changes = prepared([tables.change(line.method, i, j) for i, j in pairs])
        distance_of = {
            (i, j): tables.distance(line.distance, i, j)
            for i, j in itertools.permutations(NAMES, 2)
        }
        distances = [distance_of[i, j] for i, j in pairs]
        observed = stats.pearsonr(prepared(distances), changes).statistic
        assert line.value == pytest.approx(observed)
        assert line.n == 16
        assert len(pairs) == 16
        is_beyond = []
        for order in itertools.permutations(TARGETS):
            # the one dataset that is only evaluated on keeps its name
            names = dict(zip(NAMES, [*order, "e"], strict=True))
            distances = [distance_of[names[i], names[j]] for i, j in pairs]
            permuted = stats.pearsonr(prepared(distances), changes).statistic
            is_beyond.append(abs(permuted) >= abs(observed) - 1e-9)
        assert line.p == pytest.approx(np.mean(is_beyond))
        assert line.permutations == 24
        assert line.exact
        assert np.isnan(line.ci_low)


def test_groups_are_permuted_by_themselves(monkeypatch):
    expected = set()
    for order_of_three in itertools.permutations((0, 1, 2)):
        for order_of_two in itertools.permutations((3, 4)):
            expected.add((*order_of_three, *order_of_two))
    orders, exact = association.permutations(3, 2, seed=0)
    assert exact
    assert len(orders) == 12
    assert {tuple(order) for order in orders} == expected
    monkeypatch.setattr(association, "MOST", 11)
    monkeypatch.setattr(association, "DRAWS", 400)
    orders, exact = association.permutations(3, 2, seed=0)
    assert not exact
    assert len(orders) == 400
    assert {tuple(order) for order in orders} == expected
    orders_of_two, _ = association.permutations(2, 0, seed=0)
    assert orders_of_two.tolist() == [[0, 1], [1, 0]]


@pytest.mark.thorough
@pytest.mark.parametrize("most", [association.MOST, 1], ids=["all permutations", "drawn"])
def test_where_targets_and_other_datasets_differ_the_mantel_test_rejects_as_often_as_it_says(
    monkeypatch, most
):
    """Datasets that are only evaluated on lie farther away and lose more.

    Beyond that nothing is associated.
    """
    monkeypatch.setattr(association, "MOST", most)
    monkeypatch.setattr(association, "DRAWS", 999)
    rng = np.random.default_rng(8)
    targets = list("abcde")
    others = list("xyz")
    datasets = targets + others
    models = range(20)
    methods = range(150)
    runs = [("pretrained", "none"), *itertools.product(methods, targets)]
    associations = []
    for model in models:
        distances = []
        for first, second in itertools.combinations(datasets, 2):
            distance = rng.normal() + 1.5 * (second in others)
            distances.append((model, first, second, "otdd", distance))
        accuracy = pd.DataFrame(
            [(*run, dataset) for run in runs for dataset in datasets],
            columns=["method", "target", "dataset"],
        ).assign(model=model, size="all", seed=0)
        is_fine_tuned = accuracy["method"] != "pretrained"
        shift = np.where(accuracy["dataset"].isin(others), -2, 0)
        accuracy["accuracy"] = is_fine_tuned * (shift + rng.normal(size=len(accuracy)))
        ri = accuracy[is_fine_tuned].assign(ri=0.0).drop_duplicates(["method", "target"])
        tables = TablesOfRuns(
            pd.DataFrame(distances, columns=["model", "first", "second", "distance", "value"]),
            accuracy,
            ri,
        )
        associations.append(
            tables.association(
                targets=targets, ood_datasets=datasets, in_distribution=None, seed=int(model)
            )
        )
    p = pd.concat(associations).query("level == 'pairs' and statistic == 'pearson'")["p"]
    assert len(p) == len(models) * len(methods)
    low, high = stats.binom.ppf([0.001, 0.999], len(p), 0.05) / len(p)
    assert low <= np.mean(p <= 0.05) <= high


def test_without_a_dataset_in_distribution_targets_are_compared_by_mean_distance_to_the_others(
    tables,
):
    table = tables.association(in_distribution=None)
    table = table.set_index(["method", "distance", "level", "statistic"])
    assert set(table.index.get_level_values("level")) == {"pairs", "targets"}
    ri = tables.mean_ri()
    distances = []
    for i in TARGETS:
        distances_to_others = [tables.distance("ncd", i, j) for j in NAMES if j != i]
        distances.append(np.mean(distances_to_others))
    expected = stats.pearsonr(distances, [ri["lwf", i] for i in TARGETS]).statistic
    assert table.loc[("lwf", "ncd", "targets", "pearson")]["value"] == pytest.approx(expected)


def test_two_points_have_no_correlation_and_pairs_can_be_left_out(tables):
    accuracy = tables.accuracy
    two_targets = TablesOfRuns(
        tables.distances,
        accuracy[accuracy["target"].isin(["a", "b", "none"])],
        tables.ri[tables.ri["target"].isin(["a", "b"])],
    )
    table = two_targets.association(targets=["a", "b"], pairs=False)
    assert set(table["level"]) == {"targets", "in_distribution"}
    assert table[["value", "ci_low", "p"]].isna().all(axis=None)
    assert set(table["permutations"]) == {0}


def test_without_fine_tuned_runs_the_table_is_empty(tables):
    pretrained = tables.accuracy[tables.accuracy["method"] == "pretrained"]
    without_runs = TablesOfRuns(tables.distances, pretrained, tables.ri.iloc[:0])
    assert len(without_runs.association()) == 0


def test_targets_are_compared_by_their_distance_to_what_is_in_distribution(tables):
    """Every line: the correlation, the p of all permutations and its confidence interval."""
    table = tables.association(confidence=0.8)
    lines = table[table["level"] != "pairs"]
    assert len(lines) == 2 * 2 * 2 * 2
    ri = tables.mean_ri()
    for line in lines.itertuples():
        distances = np.array([tables.distance(line.distance, i, "val") for i in TARGETS])
        if line.level == "targets":
            response = np.array([ri[line.method, i] for i in TARGETS])
        else:
            response = np.array([tables.change(line.method, i, "val") for i in TARGETS])
        correlate = STATISTICS[line.statistic]
        observed = correlate(distances, response).statistic
        permuted = [
            abs(correlate(np.array(order), response).statistic)
            for order in itertools.permutations(distances)
        ]
        assert line.value == pytest.approx(observed)
        assert line.p == pytest.approx(np.mean(np.array(permuted) >= abs(observed) - 1e-9))
        low, high = association.interval(observed, 4, 0.8, line.statistic == "spearman")
        assert line.ci_low == pytest.approx(low, nan_ok=True)
        assert line.ci_high == pytest.approx(high, nan_ok=True)
        assert line.n == 4
        assert line.permutations == 24
        assert line.exact


def test_lines_are_in_the_order_of_models_methods_sizes_distances_and_levels(tables):
    """Two models whose names are not sorted, and a second size.

    Each is compared with its own distances and runs.
    """
    # given
    rng = np.random.default_rng(6)
    is_fine_tuned = tables.accuracy["method"] != "pretrained"
    accuracy_of_second_size = tables.accuracy[is_fine_tuned].assign(
        size="10", accuracy=rng.uniform(0, 100, is_fine_tuned.sum())
    )
    accuracy_of_m = pd.concat([tables.accuracy, accuracy_of_second_size])
    ri_of_second_size = tables.ri.assign(size="10", ri=rng.normal(size=len(tables.ri)))
    ri_of_m = pd.concat([tables.ri, ri_of_second_size])
    distances_of_a = tables.distances.assign(
        model="a", value=rng.uniform(size=len(tables.distances))
    )
    accuracy_of_a = accuracy_of_m.assign(
        model="a", accuracy=rng.uniform(0, 100, len(accuracy_of_m))
    )
    ri_of_a = ri_of_m.assign(model="a", ri=rng.normal(size=len(ri_of_m)))
    two_models = TablesOfRuns(
        pd.concat([tables.distances, distances_of_a]),
        pd.concat([accuracy_of_m, accuracy_of_a]),
        pd.concat([ri_of_m, ri_of_a]).iloc[::-1],
    )
    # when
    table = two_models.association()
    # then
    keys = itertools.product(
        ("m", "a"),
        ("lwf", "ft"),
        ("10", "all"),
        ("otdd", "ncd"),
        ("pairs", "targets", "in_distribution"),
        STATISTICS,
    )
    assert list(table[association.KEYS].itertuples(index=False, name=None)) == list(keys)
    for model in ("m", "a"):
        one_model = TablesOfRuns(
            of_model(two_models.distances, model),
            of_model(two_models.accuracy, model),
            of_model(two_models.ri, model),
        )
        lines_of_model = without_index(of_model(table, model))
        pd.testing.assert_frame_equal(lines_of_model, without_index(one_model.association()))
    for size in ("all", "10"):
        one_size = TablesOfRuns(
            two_models.distances,
            of_size(two_models.accuracy, size),
            of_size(two_models.ri, size),
        )
        lines_of_size = without_index(table[table["size"] == size])
        pd.testing.assert_frame_equal(lines_of_size, without_index(one_size.association()))


def of_model(table, model):
    """The lines of a model."""
    return table[table["model"] == model]


def of_size(table, size):
    """The lines of the runs of a size and of the pretrained model."""
    return table[(table["size"] == size) | (table["target"] == "none")]


def test_three_points_have_a_correlation_and_no_interval(tables):
    table = tables.association(targets=TARGETS[:3], pairs=False)
    assert table["value"].notna().all()
    assert table["p"].notna().all()
    assert set(table["permutations"]) == {6}
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)
    assert set(table["n"]) == {3}


def test_without_an_evaluation_in_distribution_that_level_is_left_out_and_targets_are_still_by_it(
    tables,
):
    accuracy_without_val = tables.accuracy[tables.accuracy["dataset"] != "val"]
    without_val = replace(tables, accuracy=accuracy_without_val)
    table = without_val.association()
    table_with_val = tables.association()
    assert set(table["level"]) == {"pairs", "targets"}
    expected = table_with_val[table_with_val["level"] != "in_distribution"]
    pd.testing.assert_frame_equal(without_index(table), without_index(expected))


def test_a_model_without_runs_is_passed_over(tables):
    distances_of_another = tables.distances.assign(model="none-tuned")
    with_another = replace(tables, distances=pd.concat([distances_of_another, tables.distances]))
    table = with_another.association()
    pd.testing.assert_frame_equal(without_index(table), without_index(tables.association()))


@pytest.mark.parametrize("ranks", [False, True])
def test_constant_distances_or_changes_have_no_correlation(ranks):
    orders, exact = association.permutations(5, seed=0)
    rising = np.arange(5.0)
    constant = np.full(5, 0.1 + 0.2)
    # of a constant with what rises
    correlation, p = permuted_p(constant, rising, ranks, orders, exact)
    assert np.isnan(correlation)
    assert np.isnan(p)
    # of what rises with a constant and with itself
    responses = np.stack([constant, rising])
    correlations, p = association.permuted_p(rising.__getitem__, responses, orders, exact, ranks)
    of_constant, of_rising = correlations
    p_of_constant, p_of_rising = p
    assert np.isnan(of_constant)
    assert np.isnan(p_of_constant)
    assert of_rising == pytest.approx(1)
    assert p_of_rising == pytest.approx(2 / 120)
    almost_constant = np.array([1.0, 1 + 1e-12, 1, 1, 1])  # equal but for rounding
    assert np.isnan(association.correlations(almost_constant[None], rising[None])).all()


def test_p_does_not_depend_on_how_many_permutations_are_computed_at_once(monkeypatch):
    rng = np.random.default_rng(7)
    x = rng.normal(size=6)
    y = rng.normal(size=(2, 6))
    orders, exact = association.permutations(6, seed=0)
    correlations, p = association.permuted_p(x.__getitem__, y, orders, exact, False)
    monkeypatch.setattr(association, "CHUNK", 7)
    correlations_in_chunks, p_in_chunks = association.permuted_p(
        x.__getitem__, y, orders, exact, False
    )
    assert (correlations == correlations_in_chunks).all()
    assert (p == p_in_chunks).all()


def test_drawn_permutations_depend_on_the_seed_alone(tables, monkeypatch):
    monkeypatch.setattr(association, "MOST", 1)
    monkeypatch.setattr(association, "DRAWS", 99)
    table = tables.association(seed=1)
    table_again = tables.association(seed=1)
    of_another_seed = tables.association(seed=2)
    pd.testing.assert_frame_equal(table, table_again)
    assert not table["p"].equals(of_another_seed["p"])
    assert table["value"].equals(of_another_seed["value"])
    assert not table["exact"].any()
    assert set(table["permutations"]) == {99}
    assert table["p"].min() >= 1 / 100


def test_written_tables_have_all_distances_and_their_association(tmp_path, tables):
    # given: the files of earlier jobs, with a size that is no number
    tables = replace(
        tables, accuracy=tables.accuracy.assign(size="010"), ri=tables.ri.assign(size="010")
    )
    tables.accuracy.assign(conditions="c").to_csv(tmp_path / "accuracy.csv", index=False)
    tables.ri.assign(conditions="c").to_csv(tmp_path / "ri.csv", index=False)
    by_kind = {}
    for kind in ("otdd", "ncd"):
        by_kind[kind] = tables.distances[tables.distances["distance"] == kind]
        columns = by_kind[kind].drop(columns="model").assign(n=9, note="how")
        columns.to_csv(tmp_path / f"{kind}.csv", index=False)
    # when
    distances = association.all_distances(["m"], [tmp_path / "otdd.csv"], [tmp_path / "ncd.csv"])
    read_tables = TablesOfRuns(
        distances, read_table(tmp_path / "accuracy.csv"), read_table(tmp_path / "ri.csv")
    )
    write_tables(
        {"distances": distances, "association": read_tables.association(confidence=0.9)},
        {"distances": tmp_path / "distances.csv", "association": tmp_path / "association.csv"},
        conditions="paper",
    )
    # then
    written_distances = pd.read_csv(tmp_path / "distances.csv")
    expected_distances = [*by_kind["otdd"]["value"], *by_kind["ncd"]["value"]]
    assert written_distances["value"].tolist() == pytest.approx(expected_distances, abs=1e-6)
    assert set(written_distances["model"]) == {"m"}
    assert set(written_distances["conditions"]) == {"paper"}
    written = pd.read_csv(tmp_path / "association.csv", dtype={"size": str})
    assert set(written["conditions"]) == {"paper"}
    assert set(written["size"]) == {"010"}
    expected = without_index(tables.association(confidence=0.9))
    pd.testing.assert_frame_equal(written.drop(columns="conditions"), expected, atol=1e-5)
