"""Comparisons of pretrained models against hand-made counts, scipy and loops."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.models.settings import ModelComparisonSettings
from rib.analyses.models.tables import MEASURES, kendall_tau, model_tables
from rib.analysis.bootstrap import estimate, object_weights, over_runs, p_over_runs
from rib.analysis.counts import Counts, write_counts
from rib.analysis.ri import ood_accuracies, ood_parts
from rib.analysis.settings import RIStatistics
from rib.analysis.tables import mri_tables
from rib.analysis.writing import write_tables
from rib.base.errors import UserError
from rib.config.run import PRETRAINED, RUN_COLUMNS
from tiny.states import state_of

MODEL_METHOD = ["model", "method"]
PLACES = {"a": np.array([0, 1, 2, 3]), "b": np.array([2, 3, 4, 5, 6]), "c": np.array([0, 4, 7])}
IMAGES = {"a": [1, 2, 1, 1], "b": [1, 1, 1, 3, 1], "c": [2, 1, 1]}


def counts_of(correct, places=PLACES, images=IMAGES):
    """Counts from numbers of right answers.

    They are given by state (model, method, target, seed), dataset and object.
    """
    by_state = {state_of(m, method, t, "all", s): own for (m, method, t, s), own in correct.items()}
    states = sorted(by_state)
    return Counts(
        states=states,
        datasets=list(places),
        objects=1 + max(int(own.max()) for own in places.values()),
        object_indices=places,
        labels={name: np.zeros(len(own), int) for name, own in places.items()},
        images={name: np.array(own, np.uint16) for name, own in images.items()},
        correct={name: np.array([by_state[s][name] for s in states], np.uint16) for name in places},
    )


def runs_of(model, methods=("ft",), seeds=(0,), targets=("a", "b")):
    return [(model, PRETRAINED, "none", 0), *itertools.product([model], methods, targets, seeds)]


def random_counts(models=("k", "m"), seed=0, **more):
    rng = np.random.default_rng(seed)
    runs = [run for model in models for run in runs_of(model, **more)]
    return counts_of(
        {
            run: {name: rng.integers(0, np.array(n) + 1) for name, n in IMAGES.items()}
            for run in runs
        }
    )


def written(folder, counts, methods=("ft",), unfinished=(), **more):
    """Both tables of stored counts; `unfinished`: model, method, target, size and seed of runs."""
    write_counts(counts, folder / "counts.npz")
    fit = pd.DataFrame(
        [(*run, 50.0, "yes") for run in unfinished], columns=[*RUN_COLUMNS, "fit", "unfinished"]
    )
    fit.to_csv(folder / "fit.csv", index=False)
    paths = {name: folder / f"{name}.csv" for name in ("model_comparisons", "model_ranks")}
    draws = more.pop("draws", 4000)
    statistics = {
        "ood_datasets": list(PLACES),
        "source_groups": None,
        "replicates": 200,
        "confidence": 0.9,
        "seed": 3,
    }
    settings = ModelComparisonSettings(
        ri=RIStatistics(**{**statistics, **more}),
        methods=list(methods),
        conditions="protocol paper",
        code="",
    )
    tables = model_tables(folder / "counts.npz", folder / "fit.csv", settings, draws)
    write_tables(tables, paths, conditions=settings.conditions)
    return [pd.read_csv(path, dtype={"size": str}) for path in paths.values()]


# Differences


def test_differences_are_those_of_counts_by_hand(tmp_path):
    """Two datasets of two objects with an image each.

    On the other dataset, k goes from 1 to 2 right and m from 2 to 0.
    """
    places, images = {"a": np.array([0, 1]), "b": np.array([1, 2])}, {"a": [1, 1], "b": [1, 1]}
    before, after = {"k": [1, 0], "m": [1, 1]}, {"k": [1, 1], "m": [0, 0]}
    correct = {
        run: dict.fromkeys(places, before[run[0]] if run[1] == PRETRAINED else after[run[0]])
        for model in "km"
        for run in runs_of(model)
    }
    compared, ranks = written(tmp_path, counts_of(correct, places, images))
    assert compared["difference"].tolist() == [150, -50, 100] and compared[
        "measure"
    ].tolist() == list(MEASURES)
    assert (
        set(compared["model"]) == {"k"}
        and set(compared["other_model"]) == {"m"}
        and set(compared["objects"]) == {3}
    )
    assert ranks[["model", "ood_before", "ood_after"]].to_numpy().tolist() == [
        ["k", 50, 100],
        ["m", 100, 0],
    ]
    assert ranks[["rank_before", "rank_after"]].to_numpy().tolist() == [[2, 1], [1, 2]], (
        "who starts better ends worse"
    )


@pytest.mark.parametrize("groups", [None, {"a": "g", "c": "g"}], ids=["all", "leak-free"])
def test_differences_are_those_of_the_tables_of_each_model(tmp_path, groups):
    """With two seeds, methods and targets.

    The intervals are those of the differences in the same replicates.
    """
    counts = random_counts(methods=("ft", "lwf"), seeds=(0, 1))
    compared, ranks = written(tmp_path, counts, ("ft", "lwf"), source_groups=groups)
    ood = ood_accuracies(counts, object_weights(counts.objects, 200, 3), list(PLACES), groups)
    mri = mri_tables(ood, 0.9)[0].set_index(["model", "method"])
    for method in ("ft", "lwf"):
        own = compared[compared["method"] == method].set_index("measure")
        for measure in MEASURES:
            apart = mri.loc[("k", method), measure] - mri.loc[("m", method), measure]
            assert own.loc[measure, "difference"] == pytest.approx(apart, abs=1e-6)
        after = [
            np.mean(
                [p.after for s, p in ood.items() if s.run.values(MODEL_METHOD) == (model, method)],
                axis=0,
            )
            for model in "km"
        ]
        expected = estimate(after[0] - after[1], 0.9)
        assert own.loc["ood_after", ["difference", "ci_low", "ci_high"]].tolist() == pytest.approx(
            expected, abs=1e-6
        )
    before = compared[compared["measure"] == "ood_before"]
    assert before["p"].nunique() == 1, "the same test with the same draws"
    shown = ranks.set_index(["model", "method"])
    for key in mri.index:
        assert shown.loc[key, ["ood_before", "ood_after"]].tolist() == pytest.approx(
            mri.loc[key, ["ood_before", "ood_after"]].tolist(), abs=1e-6
        )


@pytest.mark.parametrize("groups", [None, {"a": "g", "c": "g"}], ids=["all", "leak-free"])
def test_contributions_of_objects_sum_to_the_accuracies(groups):
    counts = random_counts()
    ood = ood_accuracies(counts, object_weights(counts.objects, 1, 0), source_groups=groups)
    for state, parts in ood_parts(counts, source_groups=groups).items():
        assert parts.sum(axis=1) == pytest.approx([ood[state].before[0], ood[state].after[0]])


def test_p_is_that_of_all_sign_patterns_with_holm_over_pairs_and_measures(tmp_path):
    counts = random_counts(("k", "l", "m"))
    compared, _ = written(tmp_path, counts, draws=20_000)
    assert len(compared) == 3 * 3
    parts = {}
    for state, (before, after) in ood_parts(counts).items():
        own = np.array([after - before, before, after]) / 2
        parts[state.run.model] = parts.get(state.run.model, 0) + own
    signs = np.array(list(itertools.product((-1, 1), repeat=counts.objects)))
    for row in compared.itertuples():
        apart = (parts[row.model] - parts[row.other_model])[list(MEASURES).index(row.measure)]
        exact = np.mean(np.abs(signs @ apart) >= abs(apart.sum()) - 1e-9)
        assert row.p == pytest.approx(exact, abs=0.02)
    ordered = compared.sort_values("p", kind="stable")
    by_hand = np.minimum(1, np.maximum.accumulate(ordered["p"].to_numpy() * np.arange(9, 0, -1)))
    assert ordered["p_holm"].to_numpy() == pytest.approx(by_hand, abs=1e-5)


def test_three_seeds_are_part_of_intervals_and_tests(tmp_path):
    counts = random_counts(seeds=(0, 1, 2))
    compared, _ = written(tmp_path, counts, draws=1)
    ood = ood_accuracies(counts, object_weights(counts.objects, 200, 3))
    change = [
        np.array(
            [[ood[state_of(m, "ft", t, "all", s)] for s in range(3)] for t in "ab"], dtype=object
        )
        for m in ("k", "m")
    ]
    values = [
        np.array([[pair.after - pair.before for pair in line] for line in own]) for own in change
    ]
    apart = values[0] - values[1]
    own = compared.set_index("measure").loc["mri"]
    assert own[["difference", "ci_low", "ci_high"]].tolist() == pytest.approx(
        over_runs(apart, 0.9), abs=1e-6
    )
    assert own["p"] == pytest.approx(p_over_runs(apart), abs=1e-6)


def test_an_unfinished_model_is_compared_before_fine_tuning_only(tmp_path):
    counts = random_counts(("k", "l", "m"), methods=("ft", "lwf"))
    everything, _ = written(tmp_path, counts, ("ft", "lwf"))
    compared, ranks = written(tmp_path, counts, ("ft", "lwf"), [("k", "ft", "a", "all", 0)])
    trained = compared[compared["measure"] != "ood_before"]
    of_k = (trained["model"] == "k") & (trained["method"] == "ft")
    assert not of_k.any() and len(compared) == len(everything) - 4
    missing = ranks[ranks["rank_after"].isna()]
    assert (
        missing[["model", "method"]].to_numpy().tolist() == [["k", "ft"]]
        and missing["rank_before"].isna().all()
    )
    assert set(ranks[(ranks["method"] == "ft") & (ranks["model"] != "k")]["rank_before"]) == {1, 2}
    ft = compared[compared["method"] == "ft"]
    assert ft["p_holm"].min() == pytest.approx(min(1, 5 * ft["p"].min()), abs=1e-5), (
        "a family of five tests"
    )


def test_one_model_as_in_a_preview_is_ranked_and_compared_with_none(tmp_path):
    compared, ranks = written(tmp_path, random_counts(["k"]))
    assert compared.empty and {"model", "other_model", "measure", "p"} <= set(compared)
    assert ranks[["model", "rank_before", "rank_after"]].to_numpy().tolist() == [["k", 1, 1]]


def at_sizes(counts, sizes):
    """Counts in which a model's runs are repeated at each of its sizes."""
    pairs = sorted(
        (replace(state, run=replace(state.run, size=size)), place)
        for place, state in enumerate(counts.states)
        for size in (["all"] if state.is_pretrained else sizes[state.run.model])
    )
    return replace(
        counts.select_states([place for _, place in pairs]), states=[state for state, _ in pairs]
    )


def test_models_are_compared_at_the_sizes_that_both_have(tmp_path):
    """As in a preview, in which the models have other sizes finished."""
    counts, found = random_counts(), []
    for name, sizes in {
        "all": {"k": ["10", "all"], "m": ["10", "100"]},
        "shared": {"k": ["10"], "m": ["10"]},
    }.items():
        (tmp_path / name).mkdir()
        found.append(written(tmp_path / name, at_sizes(counts, sizes)))
    for table, expected in zip(*found, strict=True):
        pd.testing.assert_frame_equal(table, expected)
        assert set(table["size"]) == {"10"}
    with pytest.raises(UserError, match="no method and size in common"):
        written(tmp_path, at_sizes(counts, {"k": ["10"], "m": ["all"]}))


def test_methods_that_a_model_lacks_and_curves_are_left_out(tmp_path):
    counts = random_counts(methods=("ft", "own"))
    states = [replace(s, alpha=0.5) if s.run.method == "own" else s for s in counts.states]
    counts = Counts(**{**vars(counts), "states": states})
    for table in written(tmp_path, counts):
        assert set(table["method"]) == {"ft"}


# Ranks and tau


def test_equal_accuracies_share_the_better_rank(tmp_path):
    counts = random_counts(("k", "l"))
    double = [place for place, state in enumerate(counts.states) if state.run.model == "k"]
    states = list(counts.states)
    for place in double:
        state = counts.states[place]
        states.append(replace(state, run=replace(state.run, model="m")))
    correct = {name: np.concatenate([own, own[double]]) for name, own in counts.correct.items()}
    _, ranks = written(tmp_path, Counts(**{**vars(counts), "states": states, "correct": correct}))
    for when in ("before", "after"):
        best = max("kl", key=ranks.set_index("model")[f"ood_{when}"].get)
        expected = [1, 3, 1] if best == "k" else [2, 1, 2]
        assert ranks[f"rank_{when}"].tolist() == expected
    assert ranks[["tau", "tau_p"]].isna().all(axis=None), "three models"


def slow_tau(before, after):
    """Pairs in the same order minus pairs in the opposite one, by the pairs that tie in neither."""
    same, ties = 0, [0, 0]
    pairs = list(itertools.combinations(range(len(before)), 2))
    for a, b in pairs:
        x, y = before[a] - before[b], after[a] - after[b]
        same += np.sign(x * y)
        ties[0] += x == 0
        ties[1] += y == 0
    return same / np.sqrt((len(pairs) - ties[0]) * (len(pairs) - ties[1]))


@pytest.mark.parametrize("models", [5, 8, 30])
def test_tau_is_that_of_a_loop_over_pairs(models):
    rng = np.random.default_rng(models)
    for _ in range(20):
        before, after = rng.integers(0, 12, (2, models)).astype(float)
        assert kendall_tau(before, after)[0] == pytest.approx(slow_tau(before, after))


@pytest.mark.parametrize("seed", range(5))
def test_p_of_tau_is_the_share_of_all_orders_with_at_least_its_size(seed):
    before, after = np.random.default_rng(seed).normal(size=(2, 6))
    observed, p = kendall_tau(before, after)
    taus = [slow_tau(before, np.array(order)) for order in itertools.permutations(after)]
    assert p == pytest.approx(np.mean(np.abs(taus) >= abs(observed) - 1e-9))


def test_rounding_errors_are_ties_for_tau():
    before = np.arange(5.0)
    after = np.array([1.0, 2, 3, 4, 4])
    assert kendall_tau(before, after + np.array([0, 0, 0, 0, 1e-13])) == kendall_tau(before, after)
    assert np.isnan(kendall_tau(before, np.ones(5))).all()


def test_tau_of_two_models_is_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"^Kendall's tau of 2 models .* from five on\.$"):
        kendall_tau(np.zeros(2), np.zeros(2))


def test_the_table_has_tau_and_its_p_and_no_interval_of_tau(tmp_path):
    counts = random_counts("hijklm", seed=4)
    _, ranks = written(tmp_path, counts)
    ood = ood_accuracies(counts, object_weights(counts.objects, 1, 3))
    sides = []
    for when in ("before", "after"):
        of_models = [
            [getattr(p, when)[0] for s, p in ood.items() if s.run.model == model]
            for model in "hijklm"
        ]
        sides.append(np.mean(of_models, axis=1).round(9))
    expected = stats.kendalltau(*sides)
    assert ranks.loc[0, ["tau", "tau_p"]].tolist() == pytest.approx(
        [expected.statistic, expected.pvalue], abs=1e-6
    )
    assert ranks["tau"].nunique() == ranks["tau_p"].nunique() == 1
    assert not {"tau_low", "tau_high"} & set(ranks), (
        "a bootstrap pulls tau to 0, so its interval would not hold it"
    )


def test_models_are_not_ranked_by_a_merge_over_seeds_beside_means_over_seeds(tmp_path):
    """It has one run for each target, where ft has three.

    What is said of ft is the same without it.
    """
    rng, seeds = np.random.default_rng(5), (0, 1, 2)
    runs = [
        run
        for model in "km"
        for run in (*runs_of(model, seeds=seeds), *runs_of(model, ("soup",))[1:])
    ]
    counts = counts_of(
        {
            run: {name: rng.integers(0, np.array(n) + 1) for name, n in IMAGES.items()}
            for run in runs
        }
    )
    compared, ranks = written(tmp_path, counts, ("ft", "soup"))
    alone, ranks_alone = written(tmp_path, counts, ("ft",))
    pd.testing.assert_frame_equal(compared, alone)
    of_ft = ranks[ranks["method"] == "ft"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_ft, ranks_alone, check_dtype=False)
    ood = ood_accuracies(counts, object_weights(counts.objects, 200, 3))
    after = ranks[ranks["method"] == "soup"].set_index("model")
    assert after[["rank_before", "rank_after", "tau", "tau_p"]].isna().all(axis=None)
    for model in "km":
        own = np.mean(
            [
                pair.after
                for state, pair in ood.items()
                if state.run.values(MODEL_METHOD) == (model, "soup")
            ],
            axis=0,
        )
        expected = estimate(own, 0.9)
        assert after.loc[model, ["ood_after", "after_low", "after_high"]].tolist() == pytest.approx(
            expected, abs=1e-5
        )
