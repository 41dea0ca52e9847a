"""Comparisons of pretrained models against hand-made counts, scipy and loops."""

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.models.tables import MEASURES, kendall_tau, model_tables
from rib.base.errors import UserError
from rib.schema.run import PRETRAINED, RUN_COLUMNS
from rib.statistics.bootstrap import estimate, object_weights, over_runs, p_over_runs
from rib.statistics.counts import Counts, write_counts
from rib.statistics.ri import ood_accuracies, ood_parts
from rib.statistics.statistics_settings import RIStatistics
from rib.statistics.tables import mri_tables
from rib.statistics.writing import write_tables
from tiny.tables.states import state_of

# By dataset, its objects, and how many images it has of each.
OBJECTS = {"a": [0, 1, 2, 3], "b": [2, 3, 4, 5, 6], "c": [0, 4, 7]}
IMAGES = {"a": [1, 2, 1, 1], "b": [1, 1, 1, 3, 1], "c": [2, 1, 1]}
DATASETS = list(OBJECTS)
TARGETS = ("a", "b")
CONFIDENCE = 0.9
REPLICATES = 200
SEED = 3  # of the bootstrap


def counts_of(correct, objects=OBJECTS, images=IMAGES):
    """Counts of one class.

    Args:
        correct: by state and dataset, the number of right answers for each object.
        objects, images: by dataset, its objects and how many images it has of each.
    """
    states = sorted(correct)
    object_indices = {dataset: np.array(indices) for dataset, indices in objects.items()}
    correct_of_dataset = {}
    for dataset in objects:
        answers = [correct[state][dataset] for state in states]
        correct_of_dataset[dataset] = np.array(answers, np.uint16)
    return Counts(
        states=states,
        datasets=list(objects),
        objects=1 + max(int(indices.max()) for indices in object_indices.values()),
        object_indices=object_indices,
        labels={dataset: np.zeros(len(indices), int) for dataset, indices in objects.items()},
        images={dataset: np.array(numbers, np.uint16) for dataset, numbers in images.items()},
        correct=correct_of_dataset,
    )


def fine_tuned_states(model, methods=("ft",), seeds=(0,)):
    """States of a model that was fine-tuned on each target."""
    return [
        state_of(model, method, target, "all", seed)
        for method, target, seed in itertools.product(methods, TARGETS, seeds)
    ]


def states_of(model, methods=("ft",), seeds=(0,)):
    """The pretrained model, and its fine-tuned states."""
    pretrained = state_of(model, PRETRAINED, "none", "all", 0)
    return [pretrained, *fine_tuned_states(model, methods, seeds)]


def random_counts_of(states, rng):
    """Counts of these states, with random numbers of right answers."""
    correct = {}
    for state in states:
        correct[state] = {
            dataset: rng.integers(0, np.array(images) + 1) for dataset, images in IMAGES.items()
        }
    return counts_of(correct)


def random_counts(models=("k", "m"), methods=("ft",), seeds=(0,), random_seed=0):
    """Counts of the states of these models, with random numbers of right answers."""
    states = []
    for model in models:
        states += states_of(model, methods, seeds)
    return random_counts_of(states, np.random.default_rng(random_seed))


class ModelTables(NamedTuple):
    """The two tables of the analysis."""

    comparisons: pd.DataFrame
    ranks: pd.DataFrame


def write_model_tables(
    folder, counts, methods=("ft",), underfitted=(), source_groups=None, draws=4000
):
    """The tables as their job writes them.

    Args:
        underfitted: runs.
        source_groups: of datasets, if what shares source images with the target does not count.
        draws: of signs, for the tests.
    """
    write_counts(counts, folder / "counts.npz")
    fit_of_underfitted = [(*run.values(RUN_COLUMNS), 50.0, "yes") for run in underfitted]
    fit = pd.DataFrame(fit_of_underfitted, columns=[*RUN_COLUMNS, "fit", "underfitted"])
    fit.to_csv(folder / "fit.csv", index=False)
    ri = RIStatistics(
        ood_datasets=DATASETS,
        source_groups=source_groups,
        replicates=REPLICATES,
        confidence=CONFIDENCE,
        seed=SEED,
    )
    tables = model_tables(
        folder / "counts.npz", folder / "fit.csv", ri=ri, methods=methods, draws=draws
    )
    comparisons = folder / "model_comparisons.csv"
    ranks = folder / "model_ranks.csv"
    files = {"model_comparisons": comparisons, "model_ranks": ranks}
    write_tables(tables, files, conditions="protocol paper")
    return ModelTables(
        comparisons=pd.read_csv(comparisons, dtype={"size": str}),
        ranks=pd.read_csv(ranks, dtype={"size": str}),
    )


def ood_of(counts, source_groups=None):
    """Accuracies on the other datasets, with the draws of objects that the tables have."""
    weights = object_weights(counts.objects, REPLICATES, SEED)
    return ood_accuracies(counts, weights, DATASETS, source_groups)


def mean_over_runs(ood, model, method, side):
    """Mean accuracy over a model's runs of a method, (1 + replicates,).

    Args:
        ood: of `ood_of`.
        side: before or after.
    """
    accuracies_of_runs = [
        getattr(accuracies, side)
        for state, accuracies in ood.items()
        if (state.run.model, state.run.method) == (model, method)
    ]
    return np.mean(accuracies_of_runs, axis=0)


# Differences


def test_differences_are_those_of_counts_by_hand(tmp_path):
    """Two datasets of two objects with an image each.

    On the other dataset, k goes from 1 to 2 right and m from 2 to 0.
    """
    # given
    objects = {"a": [0, 1], "b": [1, 2]}
    images = {"a": [1, 1], "b": [1, 1]}
    right_before = {"k": [1, 0], "m": [1, 1]}
    right_after = {"k": [1, 1], "m": [0, 0]}
    correct = {}
    for model in ("k", "m"):
        for state in states_of(model):
            right = right_before[model] if state.is_pretrained else right_after[model]
            correct[state] = {"a": right, "b": right}
    # when
    tables = write_model_tables(tmp_path, counts_of(correct, objects, images))
    # then
    comparisons = tables.comparisons
    assert comparisons["measure"].tolist() == ["mri", "ood_before", "ood_after"]
    assert comparisons["difference"].tolist() == [50 - -100, 50 - 100, 100 - 0]
    assert set(comparisons["model"]) == {"k"}
    assert set(comparisons["other_model"]) == {"m"}
    assert set(comparisons["objects"]) == {3}
    accuracies = tables.ranks[["model", "ood_before", "ood_after"]].to_numpy().tolist()
    assert accuracies == [["k", 50, 100], ["m", 100, 0]]
    ranks = tables.ranks[["model", "rank_before", "rank_after"]].to_numpy().tolist()
    assert ranks == [["k", 2, 1], ["m", 1, 2]], "who starts better ends worse"


@pytest.mark.parametrize("groups", [None, {"a": "g", "c": "g"}], ids=["all", "leak-free"])
def test_differences_are_those_of_the_tables_of_each_model(tmp_path, groups):
    """With two seeds, methods and targets.

    The intervals are those of the differences in the same replicates.
    """
    # given
    methods = ("ft", "lwf")
    counts = random_counts(methods=methods, seeds=(0, 1))
    # when
    tables = write_model_tables(tmp_path, counts, methods, source_groups=groups)
    # then differences are those of the models' mRI and accuracies
    ood = ood_of(counts, groups)
    mri_table, *_ = mri_tables(ood, CONFIDENCE)
    mri = mri_table.set_index(["model", "method"])
    differences = tables.comparisons.set_index(["method", "measure"])
    for method in methods:
        for measure in MEASURES:
            expected = mri.loc[("k", method), measure] - mri.loc[("m", method), measure]
            difference = differences.loc[(method, measure), "difference"]
            assert difference == pytest.approx(expected, abs=1e-6)
        after_of_k = mean_over_runs(ood, "k", method, "after")
        after_of_m = mean_over_runs(ood, "m", method, "after")
        interval = differences.loc[(method, "ood_after"), ["difference", "ci_low", "ci_high"]]
        expected = estimate(after_of_k - after_of_m, CONFIDENCE)
        assert interval.tolist() == pytest.approx(expected, abs=1e-6)
    # and p before fine-tuning is one number
    p_before = tables.comparisons.loc[tables.comparisons["measure"] == "ood_before", "p"]
    assert p_before.nunique() == 1, "the same test with the same draws"
    # and ranks are of these accuracies
    ranked = tables.ranks.set_index(["model", "method"])
    for model_and_method in mri.index:
        accuracies = ranked.loc[model_and_method, ["ood_before", "ood_after"]].tolist()
        expected = mri.loc[model_and_method, ["ood_before", "ood_after"]].tolist()
        assert accuracies == pytest.approx(expected, abs=1e-6)


def contributions_of_models(counts):
    """By model and measure, what each object contributes to the mean over both targets."""
    contributions = {}
    for state, (before, after) in ood_parts(counts).items():
        of_run = {"mri": after - before, "ood_before": before, "ood_after": after}
        for measure, of_objects in of_run.items():
            key = (state.run.model, measure)
            contributions[key] = contributions.get(key, 0) + of_objects / len(TARGETS)
    return contributions


def test_p_is_that_of_all_sign_patterns_with_holm_over_pairs_and_measures(tmp_path):
    # given
    counts = random_counts(("k", "l", "m"))
    # when
    comparisons = write_model_tables(tmp_path, counts, draws=20_000).comparisons
    # then
    tests = 3 * 3
    assert len(comparisons) == tests
    contributions = contributions_of_models(counts)
    sign_patterns = np.array(list(itertools.product((-1, 1), repeat=counts.objects)))
    for row in comparisons.itertuples():
        of_model = contributions[row.model, row.measure]
        of_other = contributions[row.other_model, row.measure]
        differences_of_objects = of_model - of_other
        observed = abs(differences_of_objects.sum())
        exact_p = np.mean(np.abs(sign_patterns @ differences_of_objects) >= observed - 1e-9)
        assert row.p == pytest.approx(exact_p, abs=0.02)
    from_smallest_p = comparisons.sort_values("p", kind="stable")
    remaining_tests = np.arange(tests, 0, -1)
    adjusted = np.maximum.accumulate(from_smallest_p["p"].to_numpy() * remaining_tests)
    assert from_smallest_p["p_holm"].to_numpy() == pytest.approx(np.minimum(1, adjusted), abs=1e-5)


def changes_of_runs(ood, model, seeds):
    """RI of each run of ft, (targets, seeds, 1 + replicates)."""
    changes = []
    for target in TARGETS:
        accuracies = [ood[state_of(model, "ft", target, "all", seed)] for seed in seeds]
        changes.append([of_run.after - of_run.before for of_run in accuracies])
    return np.array(changes)


def test_three_seeds_are_part_of_intervals_and_tests(tmp_path):
    seeds = (0, 1, 2)
    counts = random_counts(seeds=seeds)
    comparisons = write_model_tables(tmp_path, counts, draws=1).comparisons
    ood = ood_of(counts)
    difference = changes_of_runs(ood, "k", seeds) - changes_of_runs(ood, "m", seeds)
    row = comparisons.set_index("measure").loc["mri"]
    interval = row[["difference", "ci_low", "ci_high"]].tolist()
    assert interval == pytest.approx(over_runs(difference, CONFIDENCE), abs=1e-6)
    assert row["p"] == pytest.approx(p_over_runs(difference), abs=1e-6)


def test_an_underfitted_model_is_compared_before_fine_tuning_only(tmp_path):
    # given
    methods = ("ft", "lwf")
    counts = random_counts(("k", "l", "m"), methods)
    underfitted = state_of("k", "ft", "a", "all", 0).run
    # when
    of_finished = write_model_tables(tmp_path, counts, methods)
    tables = write_model_tables(tmp_path, counts, methods, [underfitted])
    # then k, trained with ft, is compared with no other model in no measure after fine-tuning
    comparisons = tables.comparisons
    after = comparisons[comparisons["measure"] != "ood_before"]
    is_underfitted = (after["model"] == "k") & (after["method"] == "ft")
    assert not is_underfitted.any()
    other_models = 2
    measures_after = 2
    expected_rows = len(of_finished.comparisons) - other_models * measures_after
    assert len(comparisons) == expected_rows
    # and has no rank, while the others are ranked among themselves
    ranks = tables.ranks
    without_rank = ranks[ranks["rank_after"].isna()]
    assert without_rank[["model", "method"]].to_numpy().tolist() == [["k", "ft"]]
    assert without_rank["rank_before"].isna().all()
    is_ranked = (ranks["method"] == "ft") & (ranks["model"] != "k")
    assert set(ranks.loc[is_ranked, "rank_before"]) == {1, 2}
    # and Holm's correction is over the tests that remain
    of_ft = comparisons[comparisons["method"] == "ft"]
    smallest_p = of_ft["p"].min()
    assert of_ft["p_holm"].min() == pytest.approx(min(1, 5 * smallest_p), abs=1e-5), (
        "a family of five tests"
    )


def test_one_model_as_in_a_preview_is_ranked_and_compared_with_none(tmp_path):
    tables = write_model_tables(tmp_path, random_counts(["k"]))
    assert tables.comparisons.empty
    ranks = tables.ranks[["model", "rank_before", "rank_after"]]
    assert ranks.to_numpy().tolist() == [["k", 1, 1]]


def at_sizes(counts, sizes):
    """Counts in which a model's runs are repeated at each of its sizes.

    Args:
        sizes: by model.
    """
    states_with_row = []
    for row, state in enumerate(counts.states):
        sizes_of_state = ["all"] if state.is_pretrained else sizes[state.run.model]
        for size in sizes_of_state:
            states_with_row.append((replace(state, run=replace(state.run, size=size)), row))
    states_with_row.sort()
    repeated = counts.select_states([row for _, row in states_with_row])
    return replace(repeated, states=[state for state, _ in states_with_row])


def test_models_are_compared_at_the_sizes_that_both_have(tmp_path):
    """As in a preview, in which the models have other sizes finished."""
    counts = random_counts()
    one_shared_size = at_sizes(counts, {"k": ["10", "all"], "m": ["10", "100"]})
    that_size_alone = at_sizes(counts, {"k": ["10"], "m": ["10"]})
    tables = write_model_tables(tmp_path, one_shared_size)
    expected = write_model_tables(tmp_path, that_size_alone)
    pd.testing.assert_frame_equal(tables.comparisons, expected.comparisons)
    pd.testing.assert_frame_equal(tables.ranks, expected.ranks)
    assert set(tables.comparisons["size"]) == {"10"}
    assert set(tables.ranks["size"]) == {"10"}

    no_shared_size = at_sizes(counts, {"k": ["10"], "m": ["all"]})
    with pytest.raises(UserError, match="no method and size"):
        write_model_tables(tmp_path, no_shared_size)


def test_methods_that_a_model_lacks_and_curves_are_left_out(tmp_path):
    counts = random_counts(methods=("ft", "curve"))
    states = []
    for state in counts.states:
        is_curve = state.run.method == "curve"
        states.append(replace(state, alpha=0.5) if is_curve else state)
    tables = write_model_tables(tmp_path, replace(counts, states=states))
    assert set(tables.comparisons["method"]) == {"ft"}
    assert set(tables.ranks["method"]) == {"ft"}


# Ranks and tau


def test_equal_accuracies_share_the_better_rank(tmp_path):
    # given that m has the answers of k
    counts = random_counts(("k", "l"))
    rows_of_k = [row for row, state in enumerate(counts.states) if state.run.model == "k"]
    states_of_m = []
    for row in rows_of_k:
        state = counts.states[row]
        states_of_m.append(replace(state, run=replace(state.run, model="m")))
    with_m = replace(
        counts,
        states=[*counts.states, *states_of_m],
        correct={
            dataset: np.concatenate([correct, correct[rows_of_k]])
            for dataset, correct in counts.correct.items()
        },
    )
    # when
    ranks = write_model_tables(tmp_path, with_m).ranks.set_index("model")
    # then
    for side in ("before", "after"):
        accuracy = ranks[f"ood_{side}"]
        rank = ranks[f"rank_{side}"].to_dict()
        if accuracy["k"] > accuracy["l"]:
            assert rank == {"k": 1, "l": 3, "m": 1}
        else:
            assert rank == {"k": 2, "l": 1, "m": 2}
    assert ranks[["tau", "tau_p"]].isna().all(axis=None), "three models"


def slow_tau(before, after):
    """Pairs in the same order minus pairs in the opposite one, by the pairs that tie in neither."""
    same_minus_opposite = 0
    pairs = 0
    ties_before = 0
    ties_after = 0
    for first, second in itertools.combinations(range(len(before)), 2):
        difference_before = before[first] - before[second]
        difference_after = after[first] - after[second]
        same_minus_opposite += np.sign(difference_before * difference_after)
        pairs += 1
        ties_before += difference_before == 0
        ties_after += difference_after == 0
    return same_minus_opposite / np.sqrt((pairs - ties_before) * (pairs - ties_after))


def share_of_orders(before, after):
    """Share of all orders of the models after whose tau is at least as far from 0 as theirs."""
    taus = [slow_tau(before, np.array(order)) for order in itertools.permutations(after)]
    is_at_least_as_large = np.abs(taus) >= abs(slow_tau(before, after)) - 1e-9
    return np.mean(is_at_least_as_large)


@pytest.mark.parametrize("models", [5, 30])
def test_tau_is_that_of_a_loop_over_pairs(models):
    rng = np.random.default_rng(models)
    for _ in range(20):
        before, after = rng.integers(0, 12, (2, models)).astype(float)
        tau, _ = kendall_tau(before, after)
        assert tau == pytest.approx(slow_tau(before, after))


@pytest.mark.parametrize("decimals", [9, 0], ids=["without ties", "with ties"])
@pytest.mark.parametrize("seed", range(2))
def test_p_of_tau_is_the_share_of_all_orders_with_at_least_its_size(seed, decimals):
    before, after = np.random.default_rng(seed).normal(size=(2, 6)).round(decimals)
    _, p = kendall_tau(before, after)
    assert p == pytest.approx(share_of_orders(before, after))


@pytest.mark.parametrize("models", [8, 9])
def test_p_of_tau_without_ties_is_scipys_exact_one(models):
    before, after = np.random.default_rng(models).normal(size=(2, models))
    _, p = kendall_tau(before, after)
    assert p == pytest.approx(stats.kendalltau(before, after, method="exact").pvalue)


def test_p_of_tau_of_one_model_that_leads_twice_is_one_by_the_number_of_models():
    lead = np.array([0.0, 0, 0, 0, 1])
    tau, p = kendall_tau(lead, lead)
    assert tau == pytest.approx(1)
    assert p == pytest.approx(1 / 5), "the same model leads in a fifth of the pairings"


def test_p_of_tau_of_more_than_eight_models_with_ties_is_approximate():
    before = np.arange(9.0)
    after = np.array([1.0, 1, 2, 3, 4, 5, 6, 7, 8])
    _, p = kendall_tau(before, after)
    assert p == stats.kendalltau(before, after, method="asymptotic").pvalue


def test_rounding_errors_are_ties_for_tau():
    before = np.arange(5.0)
    after = np.array([1.0, 2, 3, 4, 4])
    with_rounding_error = after + np.array([0, 0, 0, 0, 1e-13])
    assert kendall_tau(before, with_rounding_error) == kendall_tau(before, after)


def test_tau_is_not_known_where_all_models_are_equal():
    assert np.isnan(kendall_tau(np.arange(5.0), np.ones(5))).all()


def test_tau_of_two_models_is_refused():
    with pytest.raises(UserError, match="2 models"):
        kendall_tau(np.zeros(2), np.zeros(2))


def test_the_table_has_tau_and_its_p(tmp_path):
    # given
    models = ["h", "i", "j", "k", "l", "m"]
    counts = random_counts(models, random_seed=4)
    # when
    ranks = write_model_tables(tmp_path, counts).ranks
    # then
    ood = ood_of(counts)
    before = []
    after = []
    for model in models:
        observed_before, *_ = mean_over_runs(ood, model, "ft", "before")
        observed_after, *_ = mean_over_runs(ood, model, "ft", "after")
        before.append(observed_before)
        after.append(observed_after)
    before = np.round(before, 9)
    after = np.round(after, 9)
    expected_tau = slow_tau(before, after)
    expected_p = share_of_orders(before, after)
    assert ranks["tau"].tolist() == pytest.approx([expected_tau] * len(models), abs=1e-6)
    assert ranks["tau_p"].tolist() == pytest.approx([expected_p] * len(models), abs=1e-6)


def test_models_are_not_ranked_by_a_merge_over_seeds_beside_means_over_seeds(tmp_path):
    """It has one run for each target, where ft has three.

    What is said of ft is the same without it.
    """
    # given
    states = []
    for model in ("k", "m"):
        states += states_of(model, ["ft"], seeds=(0, 1, 2))
        states += fine_tuned_states(model, ["soup"])
    counts = random_counts_of(states, np.random.default_rng(5))
    # when
    tables = write_model_tables(tmp_path, counts, methods=("ft", "soup"))
    tables_of_ft = write_model_tables(tmp_path, counts, methods=("ft",))
    # then
    pd.testing.assert_frame_equal(tables.comparisons, tables_of_ft.comparisons)
    ranks = tables.ranks
    ranks_of_ft = ranks[ranks["method"] == "ft"].reset_index(drop=True)
    pd.testing.assert_frame_equal(ranks_of_ft, tables_of_ft.ranks, check_dtype=False)

    ranks_of_soup = ranks[ranks["method"] == "soup"].set_index("model")
    assert ranks_of_soup[["rank_before", "rank_after", "tau", "tau_p"]].isna().all(axis=None)
    ood = ood_of(counts)
    for model in ("k", "m"):
        interval = ranks_of_soup.loc[model, ["ood_after", "after_low", "after_high"]].tolist()
        expected = estimate(mean_over_runs(ood, model, "soup", "after"), CONFIDENCE)
        assert interval == pytest.approx(expected, abs=1e-5)
