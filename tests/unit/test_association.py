"""Correlations, their permutation tests and Mantel's.

They are compared with scipy and with loops over every permutation.
"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.distances import association
from rib.analyses.distances.settings import AssociationSettings
from rib.analysis.fit import read_table
from rib.analysis.writing import write_tables

NAMES = ["a", "b", "c", "d", "e"]
TARGETS = ["a", "b", "c", "d"]
STATISTICS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def p_of(x, y, ranks, orders, exact):
    value, p = association.permuted_p(x.__getitem__, y[None], orders, exact, ranks)
    return value[0], p[0]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_correlations_and_their_p_are_those_of_every_permutation(statistic):
    rng = np.random.default_rng(0)
    for x, y in (
        rng.normal(size=(2, 6)),
        rng.integers(0, 4, (2, 6)).astype(float),
    ):  # with and without ties
        found, p = p_of(x, y, statistic == "spearman", *association.permutations(6, seed=0))
        reference = STATISTICS[statistic]
        assert found == pytest.approx(reference(x, y)[0])
        every = [abs(reference(np.array(order), y)[0]) for order in itertools.permutations(x)]
        assert p == pytest.approx(np.mean(np.array(every) >= abs(found) - 1e-9))


def test_few_permutations_are_all_tried_and_many_are_drawn(monkeypatch):
    orders, exact = association.permutations(5, seed=0)
    assert exact and len({tuple(order) for order in orders}) == 120
    assert (
        len(association.permutations(9, seed=0)[0])
        == math.factorial(9)
        <= association.MOST
        < math.factorial(10)
    )
    monkeypatch.setattr(association, "DRAWS", 500)
    monkeypatch.setattr(association, "MOST", math.factorial(6))
    assert association.permutations(6, seed=0)[1] and not association.permutations(7, seed=0)[1]
    orders, exact = association.permutations(10, seed=3)
    assert not exact and orders.shape == (500, 10) and (np.sort(orders) == np.arange(10)).all()
    assert (orders == association.permutations(10, seed=3)[0]).all()
    assert (orders != association.permutations(10, seed=4)[0]).any()
    x = np.arange(10.0)
    assert p_of(x, x, False, orders, exact) == (pytest.approx(1), pytest.approx(1 / 501))  # never 0


@pytest.mark.parametrize("ranks", [False, True])
def test_p_is_uniform_where_there_is_no_association(ranks):
    rng = np.random.default_rng(2)
    orders = association.permutations(5, seed=0)
    x = rng.normal(size=5)
    _, p = association.permuted_p(x.__getitem__, rng.normal(size=(3000, 5)), *orders, ranks)
    for level in (0.05, 0.1, 0.25, 0.5):
        # of 120 orders and their mirror images p is a multiple of 1/120; it is never too small too
        # often
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level / 3000)
    if not ranks:  # without ties it is uniform on its steps
        assert np.mean(p <= 0.25) == pytest.approx(0.25, abs=0.025) and np.mean(p) == pytest.approx(
            0.5, abs=0.03
        )


@pytest.mark.parametrize("ranks", [False, True])
def test_intervals_cover_the_true_correlation(ranks):
    """Of normal pairs with correlation 0.5; Spearman's is then 6/pi arcsin(1/4)."""
    rng, truth, n, trials = np.random.default_rng(3), 0.5, 8, 2000
    expected = 6 / np.pi * np.arcsin(truth / 2) if ranks else truth
    hits = 0
    for x, noise in rng.normal(size=(trials, 2, n)):
        y = truth * x + np.sqrt(1 - truth**2) * noise
        value = (stats.spearmanr if ranks else stats.pearsonr)(x, y)[0]
        low, high = association.interval(value, n, 0.95, ranks)
        hits += not low <= high or low <= expected <= high
    assert hits / trials == pytest.approx(0.95, abs=0.02)


def test_the_interval_is_scipys_and_absent_where_nothing_is_known():
    x, y = np.random.default_rng(4).normal(size=(2, 9))
    result = stats.pearsonr(x, y)
    assert association.interval(result.statistic, 9, 0.9, ranks=False) == pytest.approx(
        tuple(result.confidence_interval(0.9))
    )
    for value, n in ((0.5, 3), (1.0, 5), (-1.0, 5), (np.nan, 5)):
        assert np.isnan(association.interval(value, n, 0.95, ranks=True)).all()


@pytest.mark.parametrize(
    ("value", "n", "confidence", "ranks", "expected"),
    [
        # artanh(0.6) = 0.693147; its variance 1.18 / 7 (Bonett & Wright 2000, equation 3) or 1 / 7;
        # normal quantiles
        (0.6, 10, 0.95, True, (0.693147 - 1.959964 * 0.410575, 0.693147 + 1.959964 * 0.410575)),
        (0.6, 10, 0.95, False, (0.693147 - 1.959964 * 0.377964, 0.693147 + 1.959964 * 0.377964)),
        (-0.6, 10, 0.9, True, (-0.693147 - 1.644854 * 0.410575, -0.693147 + 1.644854 * 0.410575)),
        (0.0, 4, 0.95, True, (-1.959964, 1.959964)),
    ],
)
def test_the_interval_of_a_rank_correlation_is_that_of_bonett_and_wright(
    value, n, confidence, ranks, expected
):
    assert association.interval(value, n, confidence, ranks) == pytest.approx(
        tuple(np.tanh(expected)), abs=5e-6
    )


@pytest.fixture
def tables():
    """Two methods of one model, two seeds: random distances and accuracies.

    `val` is in distribution.
    """
    rng = np.random.default_rng(5)
    every = [*NAMES, "val"]
    distances = pd.DataFrame(
        [
            ("m", *pair, kind, rng.random())
            for kind in ("otdd", "ncd")
            for pair in itertools.combinations(every, 2)
        ],
        columns=["model", "first", "second", "distance", "value"],
    )
    states = [("pretrained", "none", 0), *itertools.product(("ft", "lwf"), TARGETS, (0, 1))]
    accuracy = pd.DataFrame(
        [
            ("m", method, target, "all", seed, j, 100 * rng.random())
            for method, target, seed in states
            for j in every
        ],
        columns=["model", "method", "target", "size", "seed", "dataset", "accuracy"],
    )
    ri = accuracy[accuracy["method"] != "pretrained"].groupby(
        ["model", "method", "target", "size", "seed"]
    )
    return distances, accuracy, ri["accuracy"].mean().rename("ri").reset_index()


CHOICES = {
    "targets": TARGETS,
    "ood_datasets": NAMES,
    "in_distribution": "val",
    "pairs": True,
    "confidence": 0.95,
    "seed": 0,
}


def settings_of(**choices):
    """Settings of the job that compares distances."""
    return AssociationSettings(models=["m"], conditions="paper", code="", **{**CHOICES, **choices})


def tabled(tables, **choices):
    return association.association_table(*tables, settings_of(**choices))


def distance(tables, kind, i, j):
    part = tables[0].query("distance == @kind")
    (value,) = part[[{i, j} == {a, b} for a, b in zip(part["first"], part["second"], strict=True)]][
        "value"
    ]
    return value


def change(tables, method, i, j):
    found = tables[1].query("dataset == @j")
    before = found.query("method == 'pretrained'")["accuracy"].item()
    return found.query("method == @method and target == @i")["accuracy"].mean() - before


def test_the_mantel_test_of_pairs_is_a_loop_over_renamed_datasets(tables):
    table = tabled(tables).query("level == 'pairs'").set_index(["method", "distance", "statistic"])
    cells = [(i, j) for i in TARGETS for j in NAMES if i != j]
    known = {
        (kind, i, j): distance(tables, kind, i, j)
        for kind, (i, j) in itertools.product(("otdd", "ncd"), itertools.permutations(NAMES, 2))
    }
    changed = {
        method: [change(tables, method, *cell) for cell in cells] for method in ("ft", "lwf")
    }
    for (method, kind, statistic), line in table.iterrows():
        prepare = stats.rankdata if statistic == "spearman" else np.array
        changes = prepare(changed[method])
        value = np.corrcoef(prepare([known[kind, *cell] for cell in cells]), changes)[0, 1]
        assert line["value"] == pytest.approx(value) and line["n"] == len(cells) == 16
        beyond = []
        for order in itertools.permutations(
            TARGETS
        ):  # the one dataset that is only evaluated on keeps its name
            renamed = dict(zip(NAMES, [*order, "e"], strict=True))
            moved = [known[kind, renamed[i], renamed[j]] for i, j in cells]
            beyond.append(abs(np.corrcoef(prepare(moved), changes)[0, 1]) >= abs(value) - 1e-9)
        assert line["p"] == pytest.approx(np.mean(beyond))
        assert line["permutations"] == 24 and line["exact"] and np.isnan(line["ci_low"])


def test_groups_are_permuted_by_themselves(monkeypatch):
    orders, exact = association.permutations(3, 2, seed=0)
    expected = {
        (*a, *b) for a in itertools.permutations(range(3)) for b in itertools.permutations((3, 4))
    }
    assert exact and len(orders) == 12 and {tuple(order) for order in orders} == expected
    monkeypatch.setattr(association, "MOST", 11)
    monkeypatch.setattr(association, "DRAWS", 400)
    orders, exact = association.permutations(3, 2, seed=0)
    assert not exact and len(orders) == 400 and {tuple(order) for order in orders} == expected
    assert association.permutations(2, 0, seed=0)[0].tolist() == [[0, 1], [1, 0]]


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
    rng, targets, others = np.random.default_rng(8), list("abcde"), list("xyz")
    every, tables, models, methods = targets + others, [], range(20), range(150)
    for model in models:
        apart = [
            (model, i, j, "otdd", rng.normal() + 1.5 * (j in others))
            for i, j in itertools.combinations(every, 2)
        ]
        distances = pd.DataFrame(apart, columns=["model", "first", "second", "distance", "value"])
        cells = [("pretrained", "none", j) for j in every] + list(
            itertools.product(methods, targets, every)
        )
        accuracy = pd.DataFrame(cells, columns=["method", "target", "dataset"]).assign(
            model=model, size="all", seed=0
        )
        shift = np.where(accuracy["dataset"].isin(others), -2, 0) * (
            accuracy["method"] != "pretrained"
        )
        accuracy["accuracy"] = shift + (accuracy["method"] != "pretrained") * rng.normal(
            size=len(accuracy)
        )
        ri = (
            accuracy[accuracy["method"] != "pretrained"]
            .assign(ri=0.0)
            .drop_duplicates(["method", "target"])
        )
        settings = settings_of(
            targets=targets, ood_datasets=every, in_distribution=None, seed=int(model)
        )
        tables.append(association.association_table(distances, accuracy, ri, settings))
    p = pd.concat(tables).query("level == 'pairs' and statistic == 'pearson'")["p"]
    assert len(p) == len(models) * len(methods)
    low, high = stats.binom.ppf([0.001, 0.999], len(p), 0.05) / len(p)
    assert low <= np.mean(p <= 0.05) <= high


def test_without_a_dataset_in_distribution_targets_are_compared_by_mean_distance_to_the_others(
    tables,
):
    table = tabled(tables, in_distribution=None).set_index(
        ["method", "distance", "level", "statistic"]
    )
    assert set(table.index.get_level_values("level")) == {"pairs", "targets"}
    gains = tables[2].groupby(["method", "target"])["ri"].mean()
    apart = [np.mean([distance(tables, "ncd", i, j) for j in NAMES if j != i]) for i in TARGETS]
    expected = stats.pearsonr(apart, [gains["lwf", i] for i in TARGETS])[0]
    assert table.loc[("lwf", "ncd", "targets", "pearson")]["value"] == pytest.approx(expected)


def test_two_points_have_no_correlation_and_pairs_can_be_left_out(tables):
    few = tuple(
        table[table["target"].isin(["a", "b", "none"])] if "target" in table else table
        for table in tables
    )
    table = tabled(few, targets=["a", "b"], pairs=False)
    assert set(table["level"]) == {"targets", "in_distribution"}
    assert table[["value", "ci_low", "p"]].isna().all(axis=None) and set(table["permutations"]) == {
        0
    }
    assert list(table) == association.COLUMNS


def test_without_fine_tuned_runs_the_table_is_empty(tables):
    before = tables[1].query("method == 'pretrained'")
    assert len(tabled((tables[0], before, tables[2].iloc[:0]))) == 0


def test_targets_are_compared_by_their_distance_to_what_is_in_distribution(tables):
    """Every line: the correlation, the p of all permutations and its confidence interval."""
    table = tabled(tables, confidence=0.8)
    gains = tables[2].groupby(["method", "target"])["ri"].mean()
    checked = 0
    for line in table[table["level"] != "pairs"].itertuples():
        apart = np.array([distance(tables, line.distance, i, "val") for i in TARGETS])
        if line.level == "targets":
            response = np.array([gains[line.method, i] for i in TARGETS])
        else:
            response = np.array([change(tables, line.method, i, "val") for i in TARGETS])
        correlate = STATISTICS[line.statistic]
        value = correlate(apart, response)[0]
        every = np.array(
            [correlate(np.array(order), response)[0] for order in itertools.permutations(apart)]
        )
        assert line.value == pytest.approx(value) and line.p == pytest.approx(
            np.mean(abs(every) >= abs(value) - 1e-9)
        )
        expected = association.interval(value, 4, 0.8, line.statistic == "spearman")
        assert (line.ci_low, line.ci_high) == pytest.approx(expected, nan_ok=True)
        assert (line.n, line.permutations, line.exact) == (4, 24, True)
        checked += 1
    assert checked == 2 * 2 * 2 * 2


def test_lines_are_in_the_order_of_models_methods_sizes_distances_and_levels(tables):
    """Two models whose names are not sorted, and a second size.

    Each is compared with its own distances and runs.
    """
    distances, accuracy, ri = tables
    tuned = accuracy["method"] != "pretrained"
    rng = np.random.default_rng(6)
    extra = accuracy[tuned].assign(size="10", accuracy=rng.uniform(0, 100, tuned.sum()))
    sizes = pd.concat([accuracy, extra])
    gains = pd.concat([ri, ri.assign(size="10", ri=rng.normal(size=len(ri)))])
    other = distances.assign(model="a", value=rng.uniform(size=len(distances)))
    both = (
        pd.concat([distances, other]),
        pd.concat([sizes, sizes.assign(model="a", accuracy=rng.uniform(0, 100, len(sizes)))]),
        pd.concat([gains, gains.assign(model="a", ri=rng.normal(size=len(gains)))]),
    )
    both = (*both[:2], both[2].iloc[::-1])
    table = tabled(both)
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
        alone = tabled([part[part["model"] == model] for part in both])
        own = table[table["model"] == model].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone.reset_index(drop=True))
    for size in ("all", "10"):
        single = [
            both[0],
            *(part[(part["size"] == size) | (part["target"] == "none")] for part in both[1:]),
        ]
        own = table[table["size"] == size].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, tabled(single).reset_index(drop=True))


def test_three_points_have_a_correlation_and_no_interval(tables):
    table = tabled(tables, targets=TARGETS[:3], pairs=False)
    assert (
        table["value"].notna().all()
        and table["p"].notna().all()
        and set(table["permutations"]) == {6}
    )
    assert table[["ci_low", "ci_high"]].isna().all(axis=None) and set(table["n"]) == {3}


def test_without_an_evaluation_in_distribution_that_level_is_left_out_and_targets_are_still_by_it(
    tables,
):
    distances, accuracy, ri = tables
    less = (distances, accuracy[accuracy["dataset"] != "val"], ri)
    table, whole = tabled(less), tabled(tables)
    assert set(table["level"]) == {"pairs", "targets"}
    expected = whole[whole["level"] != "in_distribution"].reset_index(drop=True)
    pd.testing.assert_frame_equal(table.reset_index(drop=True), expected)


def test_a_model_without_runs_is_passed_over(tables):
    distances, accuracy, ri = tables
    other = distances.assign(model="none-tuned")
    table = tabled((pd.concat([other, distances]), accuracy, ri))
    pd.testing.assert_frame_equal(
        table.reset_index(drop=True), tabled(tables).reset_index(drop=True)
    )


@pytest.mark.parametrize("ranks", [False, True])
def test_constant_distances_or_changes_have_no_correlation(ranks):
    orders, exact = association.permutations(5, seed=0)
    rising, constant = np.arange(5.0), np.full(5, 0.1 + 0.2)
    value, p = association.permuted_p(constant.__getitem__, rising[None], orders, exact, ranks)
    assert np.isnan(value).all() and np.isnan(p).all()
    value, p = association.permuted_p(
        rising.__getitem__, np.stack([constant, rising]), orders, exact, ranks
    )
    assert np.isnan([value[0], p[0]]).all() and (value[1], p[1]) == (
        pytest.approx(1),
        pytest.approx(2 / 120),
    )
    almost = np.array([1.0, 1 + 1e-12, 1, 1, 1])  # equal but for rounding
    assert np.isnan(association.correlations(almost[None], rising[None])).all()


def test_p_does_not_depend_on_how_many_permutations_are_computed_at_once(monkeypatch):
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=6), rng.normal(size=(2, 6))
    orders, exact = association.permutations(6, seed=0)
    at_once = association.permuted_p(x.__getitem__, y, orders, exact, False)
    monkeypatch.setattr(association, "CHUNK", 7)
    in_parts = association.permuted_p(x.__getitem__, y, orders, exact, False)
    assert (at_once[0] == in_parts[0]).all() and (at_once[1] == in_parts[1]).all()


def test_drawn_permutations_depend_on_the_seed_alone(tables, monkeypatch):
    monkeypatch.setattr(association, "MOST", 1)
    monkeypatch.setattr(association, "DRAWS", 99)
    first, again, other = (tabled(tables, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first["p"].equals(other["p"]) and first["value"].equals(other["value"])
    assert (
        not first["exact"].any()
        and set(first["permutations"]) == {99}
        and first["p"].min() >= 1 / 100
    )


def test_distances_are_looked_up_either_way_round(tables):
    distances, _, _ = tables
    one = distances[distances["distance"] == "otdd"]
    turned = one.rename(columns={"first": "second", "second": "first"})
    for in_distribution in ("val", None):
        expected = {
            i: np.mean(
                [
                    distance(tables, "otdd", i, j)
                    for j in ([in_distribution] if in_distribution else NAMES)
                    if j != i
                ]
            )
            for i in TARGETS
        }
        for part in (one, turned):
            found = association.to_targets(part, TARGETS, NAMES, in_distribution)
            assert list(found) == TARGETS and found == pytest.approx(expected)


def test_written_tables_have_all_distances_and_their_association(tmp_path, tables):
    distances, accuracy, ri = tables
    files = []
    for kind in ("otdd", "ncd"):
        part = (
            distances[distances["distance"] == kind].drop(columns="model").assign(n=9, note="how")
        )
        part.to_csv(tmp_path / f"{kind}.csv", index=False)
        files.append(tmp_path / f"{kind}.csv")
    accuracy, ri = (part.assign(size="010") for part in (accuracy, ri))  # no number
    for name, part in (("accuracy", accuracy), ("ri", ri)):
        part.assign(conditions="c").to_csv(tmp_path / f"{name}.csv", index=False)
    outputs = {name: tmp_path / f"{name}_out.csv" for name in ("distances", "association")}
    settings = settings_of(confidence=0.9)
    distances_of_models = association.all_distances(["m"], files[:1], files[1:])
    written = {
        "distances": distances_of_models,
        "association": association.association_table(
            distances_of_models,
            read_table(tmp_path / "accuracy.csv"),
            read_table(tmp_path / "ri.csv"),
            settings,
        ),
    }
    write_tables(written, outputs, conditions="paper")
    found, table = (pd.read_csv(path, dtype={"size": str}) for path in outputs.values())
    assert list(found) == [
        "model",
        "first",
        "second",
        "distance",
        "value",
        "n",
        "note",
        "conditions",
    ]
    expected = [
        *distances.query("distance == 'otdd'")["value"],
        *distances.query("distance == 'ncd'")["value"],
    ]
    assert found["value"].tolist() == pytest.approx(expected, abs=1e-6)
    assert set(found["model"]) == {"m"} and set(found["conditions"]) == {"paper"} == set(
        table["conditions"]
    )
    expected = association.association_table(distances, accuracy, ri, settings)
    expected = expected.reset_index(drop=True)
    pd.testing.assert_frame_equal(table.drop(columns="conditions"), expected, atol=1e-5)
    assert set(table["size"]) == {"010"}
