"""Comparisons of methods against independent references.

What intervals and tests promise is tested by simulation.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.config.run import PRETRAINED, RUN_COLUMNS
from rib.statistics import comparison
from rib.statistics.bootstrap import object_weights, over_runs, p_over_runs
from rib.statistics.comparison import (
    Column,
    compare,
    effects_of,
    few_objects,
    holm,
    letters,
    rank,
    sign_flip_p,
)
from rib.statistics.counts import Counts, count, write_counts
from rib.statistics.ri import ood_accuracies, ood_parts
from rib.statistics.scored_state import STATE_COLUMNS
from rib.statistics.settings import RIStatistics
from rib.statistics.tables import mri_tables, ri_table
from tiny.tables.rows import by_runs
from tiny.tables.states import state_of
from tiny.tables.tables import write
from tiny.tiers import first

DATASETS = {"a": 9, "b": 7, "c": 12}
TARGETS = ["a", "b"]
GROUPS = {"a": "g", "c": "g"}
RUNS = [  # method, target and seed
    (PRETRAINED, "none", 0),
    *itertools.product(("ft", "lwf", "probe"), TARGETS, (0, 1, 2)),
]


def rows(model="m", seed=0, runs=RUNS):
    """Rows of one model; objects overlap between datasets, and some have two images."""
    rng = np.random.default_rng(seed)
    tables = []
    for method, target, seed_of_run in runs:
        for dataset, n in DATASETS.items():
            objects = [*(f"o{i}" for i in range(n)), "o0", "o3"]
            labels = np.arange(len(objects))
            is_wrong = rng.random(len(objects)) < 0.4
            columns = {
                "model": model,
                "method": method,
                "target": target,
                "size": "all",
                "seed": seed_of_run,
                "alpha": np.nan,
                "dataset": dataset,
                "object_id": objects,
                "label": labels,
                "prediction": labels + is_wrong,
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def counted_of(*tables):
    """Counts of rows that say themselves what they are of."""
    table = pd.concat(tables, ignore_index=True)
    index_row = table.groupby([*STATE_COLUMNS, "dataset"], dropna=False).cumcount()
    is_wrong = table["label"] != table["prediction"]
    table = table.assign(row=index_row, rank=is_wrong.astype(int))
    images = table.groupby(["dataset", "row"], as_index=False).first()
    indexes = {
        dataset: index.reset_index(drop=True) for dataset, index in images.groupby("dataset")
    }
    return count(by_runs(table), indexes)


@pytest.fixture(scope="module")
def counts():
    return counted_of(rows())


def ood_of(counts, groups=None):
    """With the bootstrap of the tables that `written` writes."""
    return ood_accuracies(counts, object_weights(counts.objects, 300, seed=0), source_groups=groups)


def parts_of(counts, groups=None):
    """Contribution of each object to RI, by state."""
    return {
        state: after - before
        for state, (before, after) in ood_parts(counts, source_groups=groups).items()
    }


def effects(counts, groups=None):
    """Effects of the methods on RI and mRI."""
    return effects_of(ood_of(counts, groups), parts_of(counts, groups), "all")


def written(folder, prefix, underfitted=(), **choices):
    """The comparison of the counts stored in a folder, read back by name.

    Args:
        prefix: with which the names of the tables' files begin.
        underfitted: model, method, target, size and seed of runs.
        choices: arguments of `comparison_tables` that differ.
    """
    fit = pd.DataFrame(
        [(*run, 50.0, "yes") for run in underfitted], columns=[*RUN_COLUMNS, "fit", "underfitted"]
    )
    fit.to_csv(folder / "fit.csv", index=False)
    paths = {name: folder / f"{prefix}_{name}.csv" for name in comparison.COLUMNS}
    draws = choices.pop("draws", 500)
    compare_to = choices.pop("compare_to", "ft")
    statistics = {
        "ood_datasets": list(DATASETS),
        "source_groups": None,
        "replicates": 300,
        "confidence": 0.95,
        "seed": 0,
        **choices,
    }
    write(
        comparison.comparison_tables,
        counts=folder / "counts.npz",
        fit=folder / "fit.csv",
        ri=RIStatistics(**statistics),
        compare_to=compare_to,
        draws=draws,
        conditions="protocol paper",
        outputs=paths,
    )
    return {name: pd.read_csv(path, dtype={"size": str}) for name, path in paths.items()}


# Parts of a difference


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
    monkeypatch.setattr(comparison, "BLOCK_BYTES", 8 * (70 + 12) * 33)
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


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "leak-free"])
def test_tables_count_the_objects_that_can_contribute(tmp_path, caplog, groups):
    """Of `a` and `c` there are 9 and 12 objects, of `b` 7.

    Leak-free, the target `a` leaves those objects of `c` that it lacks.
    """
    write_counts(counted_of(rows()), tmp_path / "counts.npz")

    tables = written(tmp_path, "t", source_groups=groups)

    objects = rows().groupby("dataset")["object_id"].agg(set)
    objects_of_c = objects["c"]
    if groups:
        objects_of_c = objects["c"] - objects["a"]
    expected = {"a": len(objects["b"] | objects_of_c), "b": len(objects["a"] | objects["c"])}
    of_targets = tables["comparisons_ri"]
    assert (of_targets["objects"] == of_targets["target"].map(expected)).all()
    assert set(tables["comparisons"]["objects"]) == {12}
    assert set(tables["ranking"]["objects"]) == {12}

    noted_tables = [record.getMessage().split(":")[0] for record in caplog.records]
    assert noted_tables == ["comparisons", "comparisons_ri"]


# Holm, seeds, letters


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


def test_items_share_a_letter_if_and_only_if_they_are_not_told_apart():
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


# Ranking


def made_effects(means, sds, objects=200, seeds=1):
    """Effects of methods with normal parts, in one target; the pretrained model is last."""
    rng = np.random.default_rng(0)
    contributions = np.stack(
        [
            rng.normal(mean / objects, sd / objects, objects)
            for mean, sd in zip(means, sds, strict=True)
        ]
    )
    # so that sums are the means
    contributions += (np.array(means) - contributions.sum(axis=1))[:, None] / objects
    of_pretrained = np.zeros((1, objects))
    of_one_target = np.concatenate([contributions, of_pretrained])[:, None]
    weights = object_weights(objects, 400, 0).astype(float)
    replicates = of_one_target @ weights.T
    methods = [f"m{i}" for i in range(len(means))]
    return comparison.Effects(
        names=[*methods, PRETRAINED],
        columns={"t": Column("ri", slice(1)), None: Column("mri", slice(1))},
        values=replicates[:, :, None].repeat(seeds, axis=2),
        contributions=of_one_target.repeat(2, axis=1),  # to RI and to mRI
    )


def compare_by_mri(effects):
    """Comparisons of methods by mRI."""
    comparisons = compare(effects, 0.95, 2000, 0)
    return comparisons[comparisons["target"].isna()]


def test_methods_far_apart_have_ranks_of_their_own():
    comparisons = compare_by_mri(made_effects([1.0, 9.0, -5.0], [2, 2, 2]))
    ranking = rank(comparisons, 0.95)
    assert ranking["method"].tolist() == ["m1", "m0", "m2"]
    assert ranking["letters"].tolist() == ["a", "b", "c"]
    assert ranking["rank_best"].tolist() == [1, 2, 3]
    assert ranking["rank_worst"].tolist() == [1, 2, 3]
    assert ranking["pretrained"].tolist() == ["better", "better", "worse"]


def test_methods_that_the_test_cannot_tell_apart_share_a_letter():
    comparisons = compare_by_mri(made_effects([5.0, 5.1, 20.0, 0.1], [10, 10, 10, 10]))
    ranking = rank(comparisons, 0.95)
    assert ranking["method"].tolist() == ["m2", "m1", "m0", "m3"]
    assert ranking["letters"].tolist() == ["a", "b", "b", "c"]
    assert ranking["rank_best"].tolist() == [1, 2, 2, 4]
    assert ranking["rank_worst"].tolist() == [1, 3, 3, 4]
    assert ranking.set_index("method").loc["m3", "pretrained"] == "inconclusive"
    pair = comparisons.set_index(["method", "other"]).loc[("m0", "m1")]
    assert pair["p_holm"] > 0.05
    assert pair["difference"] == pytest.approx(-0.1)


def test_letters_are_by_the_adjusted_p():
    """Each pair's own p is below the level and the adjusted one above it, but for one pair.

    Not to differ clearly is not a transitive relation.
    """
    comparisons = compare_by_mri(made_effects([3.0, 2.0, 1.0], [1, 1, 1]))
    comparisons = comparisons.assign(p=0.01, p_holm=0.06)
    is_told_apart = (comparisons["method"] == "m0") & (comparisons["other"] == "m2")
    comparisons.loc[is_told_apart, "p_holm"] = 0.05

    ranking = rank(comparisons, 0.95)

    assert ranking["letters"].tolist() == ["a", "ab", "b"]
    assert set(ranking["pretrained"]) == {"inconclusive"}
    assert ranking["rank_best"].tolist() == [1, 1, 2]
    assert ranking["rank_worst"].tolist() == [2, 3, 3]


# Tables


@pytest.fixture(scope="module")
def two_models():
    """Counts of two models."""
    return counted_of(rows("m"), rows("n", 1))


@pytest.fixture
def tables(tmp_path, two_models):
    """A folder with counts of two models, and the tables that compare their methods."""
    folder = tmp_path / "tables"
    folder.mkdir()
    write_counts(two_models, folder / "counts.npz")
    return folder, written(folder, "first")


def test_tables_agree_with_mri_and_its_intervals(tables, two_models):
    _, tables_by_name = tables
    keys = ["model", "method"]
    mri_table, *_ = mri_tables(ood_of(two_models), 0.95)
    comparisons = tables_by_name["comparisons"]
    from_pretrained = comparisons.query("other == 'pretrained'").set_index(keys)
    ranking = tables_by_name["ranking"].set_index(keys)
    columns = ["ci_low", "ci_high", "seeds", "seed_sd", "seed_low", "seed_high"]
    for key, line in mri_table.set_index(keys).iterrows():
        expected = line[["mri", *columns]].tolist()
        difference = from_pretrained.loc[key][["difference", *columns]].tolist()
        assert difference == pytest.approx(expected, abs=1e-6)
        mri_in_ranking = ranking.loc[key][["mri", *columns]].tolist()
        assert mri_in_ranking == pytest.approx(expected, abs=1e-6)
    assert len(comparisons) == 2 * 6
    assert len(tables_by_name["comparisons_ri"]) == 2 * 2 * 6
    assert len(ranking) == 2 * 3
    assert len(tables_by_name["seeds_ri"]) == 2 * 2 * 3
    for name, table in tables_by_name.items():
        assert list(table) == [*comparison.COLUMNS[name], "conditions"]


def test_leak_free_tables_leave_out_what_ri_leaves_out(tmp_path):
    counts = counted_of(rows())
    write_counts(counts, tmp_path / "counts.npz")

    tables = written(tmp_path, "whole")
    leak_free_tables = written(tmp_path, "free", source_groups=GROUPS)

    mri_table, *_ = mri_tables(ood_of(counts, GROUPS), 0.95)
    expected = mri_table.set_index("method").sort_index()
    ranking = tables["ranking"].set_index("method").sort_index()
    leak_free_ranking = leak_free_tables["ranking"].set_index("method").sort_index()
    for column in ("mri", "ci_low", "ci_high"):
        pd.testing.assert_series_equal(
            leak_free_ranking[column], expected[column], atol=1e-6, check_names=False
        )
        assert not np.allclose(leak_free_ranking[column], ranking[column], atol=0.01)


def test_intervals_of_differences_are_of_paired_replicates(tables, two_models):
    _, tables_by_name = tables
    ood = ood_of(two_models)

    def after_fine_tuning(model, method):
        """(targets, seeds, replicates) percent; before fine-tuning all methods are alike."""
        return np.array(
            [
                [ood[state_of(model, method, target, "all", seed)].after for seed in (0, 1, 2)]
                for target in TARGETS
            ]
        )

    for line in tables_by_name["comparisons"].query("other != 'pretrained'").itertuples():
        of_method = after_fine_tuning(line.model, line.method)
        of_other_method = after_fine_tuning(line.model, line.other)
        difference = of_method - of_other_method
        with_interval = (line.difference, line.ci_low, line.ci_high)
        assert with_interval == pytest.approx(over_runs(difference, 0.95), abs=1e-6)
        assert line.p == pytest.approx(p_over_runs(difference), abs=1e-6)


def test_the_spread_over_seeds_is_that_of_the_seeds_mri(tables, two_models):
    _, tables_by_name = tables
    ri = ri_table(ood_of(two_models), 0.95)
    mri_of_seeds = ri.groupby(["model", "method", "seed"])["ri"].mean()
    for line in tables_by_name["ranking"].itertuples():
        mri = mri_of_seeds[line.model, line.method].to_numpy()
        interval = stats.t.interval(0.95, 2, mri.mean(), stats.sem(mri))
        assert line.seeds == 3
        assert line.seed_sd == pytest.approx(mri.std(ddof=1), abs=1e-6)
        assert (line.seed_low, line.seed_high) == pytest.approx(interval, abs=1e-6)

    ri_of_seeds = ri.set_index(["model", "method", "target"])["ri"]
    for line in tables_by_name["seeds_ri"].itertuples():
        ri_of_target = ri_of_seeds[line.model, line.method, line.target].to_numpy()
        expected = (ri_of_target.mean(), ri_of_target.std(ddof=1))
        assert (line.ri, line.seed_sd) == pytest.approx(expected, abs=1e-6)


def test_the_same_counts_and_seed_give_the_same_tables(tables):
    folder, _ = tables
    written(folder, "second")
    for name in comparison.COLUMNS:
        first_file = folder / f"first_{name}.csv"
        second_file = folder / f"second_{name}.csv"
        assert first_file.read_bytes() == second_file.read_bytes()


def test_other_models_do_not_change_a_models_comparison(tables, tmp_path):
    """Methods are compared within a model, so that another model changes nothing.

    This holds if it was scored on the same objects.
    """
    _, tables_of_two_models = tables
    write_counts(counted_of(rows("n", 1)), tmp_path / "counts.npz")
    tables_of_one_model = written(tmp_path, "alone")
    for name, table in tables_of_two_models.items():
        lines_of_model = table[table["model"] == "n"].reset_index(drop=True)
        pd.testing.assert_frame_equal(tables_of_one_model[name], lines_of_model)


def test_with_one_seed_the_columns_of_seeds_are_empty(tmp_path):
    runs_of_one_seed = [(method, target, seed) for method, target, seed in RUNS if seed == 0]
    write_counts(counted_of(rows(runs=runs_of_one_seed)), tmp_path / "counts.npz")
    for table in written(tmp_path, "t").values():
        assert set(table["seeds"]) == {1}
        assert table[["seed_sd", "seed_low", "seed_high"]].isna().all(axis=None)


def test_each_size_is_compared_by_itself_and_curves_not_at_all(tmp_path):
    runs_of_small = itertools.product(("lwf", "probe"), ["a"], [0])
    small = rows(seed=5, runs=runs_of_small).assign(size="10")
    curve = rows(seed=6, runs=[("curve", "a", 0), ("curve", "b", 0)]).assign(alpha=0.5)
    write_counts(counted_of(rows(), small, curve), tmp_path / "counts.npz")
    tables = written(tmp_path, "t")
    assert tables["ranking"].groupby("size").size().to_dict() == {"10": 2, "all": 3}
    assert tables["comparisons"].groupby("size").size().to_dict() == {"10": 3, "all": 6}
    of_targets = tables["comparisons_ri"]
    assert set(of_targets.loc[of_targets["size"] == "10", "target"]) == {"a"}
    assert "curve" not in set(tables["comparisons"]["method"])


def test_a_method_with_an_underfitted_run_is_neither_ranked_nor_tested(tables, tmp_path):
    """As if the method had not been run for that model and size, for any target and seed.

    Its RI stays.
    """
    folder, tables_if_finished = tables
    underfitted = [("m", "ft", "a", "all", 1), ("n", "lwf", "b", "10", 0)]

    tables_if_underfitted = written(folder, "underfitted", underfitted)

    without_the_method = counted_of(rows("m").query("method != 'ft'"), rows("n", 1))
    write_counts(without_the_method, tmp_path / "counts.npz")
    tables_without_the_method = written(tmp_path, "alone")
    for name, table in tables_if_underfitted.items():
        if name == "seeds_ri":
            pd.testing.assert_frame_equal(table, tables_if_finished[name])
        else:
            pd.testing.assert_frame_equal(table, tables_without_the_method[name])
            assert "ft" not in set(table.query("model == 'm'")["method"])


def test_without_finished_methods_nothing_is_ranked(tables):
    folder, tables_if_finished = tables
    runs = [(model, method, "b", "all", 0) for model in "mn" for method in ("ft", "lwf", "probe")]

    for name, table in written(folder, "none", runs).items():
        assert list(table) == list(tables_if_finished[name])
        if name == "seeds_ri":
            assert len(table) == len(tables_if_finished[name])
        else:
            assert len(table) == 0

    with_one_finished = written(folder, "one", runs[1:])
    ranking = with_one_finished["ranking"][["model", "method", "rank_worst"]]
    assert ranking.to_numpy().tolist() == [["m", "ft", 1]]
    comparisons = with_one_finished["comparisons"]
    assert comparisons["p_holm"].tolist() == comparisons["p"].tolist()


def test_a_grid_of_the_pretrained_model_alone_has_tables_without_lines(tmp_path):
    write_counts(counted_of(rows(runs=RUNS[:1])), tmp_path / "counts.npz")
    for name, table in written(tmp_path, "t").items():
        assert len(table) == 0
        assert list(table) == [*comparison.COLUMNS[name], "conditions"]


def counted_objects(objects_of_dataset, target, groups):
    """Objects that count in RI of a target, by dataset, without datasets of which nothing is left.

    Args:
        objects_of_dataset: all objects, by dataset.
        groups: for leak-free results, source group by dataset; all datasets with one have the same.
    """
    counted = {}
    for dataset, objects in objects_of_dataset.items():
        if dataset == target:
            continue
        leaks = set()
        if groups and target in groups and dataset in groups:
            leaks = set(objects_of_dataset[target])
        without_leaks = [object_id for object_id in objects if object_id not in leaks]
        if without_leaks:
            counted[dataset] = without_leaks
    return counted


def contributions_by_object(rows, method, target, groups):
    """(objects,) percentage points that each object adds to RI, mean over seeds 0 and 1."""
    is_right = rows["label"] == rows["prediction"]
    keys = ["method", "target", "seed", "dataset", "object_id"]
    answers = rows.assign(right=is_right).groupby(keys)["right"].agg(["sum", "size"])
    of_pretrained = answers.loc[PRETRAINED, "none", 0]
    objects_of_dataset = {dataset: of_pretrained.loc[dataset].index for dataset in DATASETS}
    counted = counted_objects(objects_of_dataset, target, groups)
    contributions = dict.fromkeys(sorted(set(rows["object_id"])), 0.0)
    for dataset, objects in counted.items():
        before = of_pretrained.loc[dataset]
        images = before.loc[objects, "size"].sum()
        for seed in (0, 1):
            after = before
            if method != PRETRAINED:
                after = answers.loc[method, target, seed, dataset]
            for object_id in objects:
                gain = after.loc[object_id, "sum"] - before.loc[object_id, "sum"]
                contributions[object_id] += 100 * gain / images / len(counted) / 2
    return np.array(list(contributions.values()))


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "leak-free"])
def test_written_differences_and_p_are_those_of_all_sign_patterns(tmp_path, groups):
    """What each object adds to mRI of one method less another's, from rows, by pandas.

    Every one of the 2^12 patterns of signs is tried.
    """
    runs = [(method, target, seed) for method, target, seed in RUNS if seed < 2]
    rows_of_runs = rows(seed=4, runs=runs)
    write_counts(counted_of(rows_of_runs), tmp_path / "counts.npz")

    tables = written(tmp_path, "t", source_groups=groups, draws=20_000)

    contributions = {
        (method, target): contributions_by_object(rows_of_runs, method, target, groups)
        for method in ("ft", "lwf", "probe", PRETRAINED)
        for target in TARGETS
    }
    for name in ("comparisons", "comparisons_ri"):
        for line in tables[name].itertuples():
            targets = TARGETS if name == "comparisons" else [line.target]
            differences = [
                contributions[line.method, target] - contributions[line.other, target]
                for target in targets
            ]
            difference = np.mean(differences, axis=0)
            assert line.difference == pytest.approx(difference.sum(), abs=1e-6)
            assert line.p == pytest.approx(exact_p(difference), abs=tolerance_of(20_000))

    assert len(tables["comparisons"]) == 6
    assert len(tables["comparisons_ri"]) == 6 * len(TARGETS)
    for name in ("comparisons", "comparisons_ri"):  # each is one family of tests
        tests = tables[name].sort_values("p", kind="stable")
        p_holm = 0.0
        for i, line in enumerate(tests.itertuples()):
            p_holm = max(p_holm, min(1, (len(tests) - i) * line.p))
            assert line.p_holm == pytest.approx(p_holm, abs=1e-4)


@pytest.mark.parametrize("objects", first([comparison.MANY_OBJECTS, 40_000]))
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


def test_parts_too_small_to_be_told_from_rounding_are_ties():
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


# Coverage

OBJECTS = 200
SIMULATED = 2000  # models
SIZES = {"t": 200, "b": 150, "c": 100}  # images of each dataset, one of an object
THRESHOLDS = {"t": 0.0, "b": 0.4, "c": 0.8}
GAINS = {"one": 0.35, "other": 0.1}
# Standard deviations: of a run's answer to an image, and of the seeds' gains.
NOISE = 0.7
NOISE_OF_SEEDS = 0.1


def simulated(rng, models, seeds):
    """Counts of so many models, each scored on objects of its own.

    The grid has two methods and one target. An answer is right where the object's ease, shared by
    all runs, plus noise of the run's own exceeds the dataset's threshold less the method's gain.
    Two seeds have fixed gains, more seeds random ones.
    """
    names = [f"{i:04}" for i in range(models)]
    states = [state_of(model, PRETRAINED, "none", "all", 0) for model in names]
    gains = [0.0] * models
    for method, gain in GAINS.items():
        for seed in range(seeds):
            states += [state_of(model, method, "t", "all", seed) for model in names]
            gains_of_seed = np.full(models, 2 * seed - 1)
            if seeds > 2:
                gains_of_seed = rng.normal(size=models)
            gains += (gain + NOISE_OF_SEEDS * gains_of_seed).tolist()
    ease_of_models = rng.normal(size=(models, OBJECTS))
    ease = ease_of_models[[int(state.run.model) for state in states]]
    correct = {}
    object_indices = {}
    for dataset, n in SIZES.items():
        object_indices[dataset] = np.arange(OBJECTS)[-n:]
        noise = NOISE * rng.normal(size=(len(states), n))
        score = ease[:, object_indices[dataset]] + noise + np.array(gains)[:, None]
        correct[dataset] = (score > THRESHOLDS[dataset]).astype(np.uint16)
    return Counts(
        states=states,
        datasets=list(SIZES),
        objects=OBJECTS,
        object_indices=object_indices,
        labels={},
        images={dataset: np.ones(n, np.uint16) for dataset, n in SIZES.items()},
        correct=correct,
    )


def true_difference(seeds):
    """Of the methods' mRI, in percentage points.

    The mean is over all objects and, if these are random, over the seeds there could be.
    """
    variance = 1 + NOISE**2
    gains_of_seeds = (-NOISE_OF_SEEDS, NOISE_OF_SEEDS)
    if seeds > 2:
        variance += NOISE_OF_SEEDS**2
        gains_of_seeds = (0,)
    accuracy = {}
    for method, gain in GAINS.items():
        accuracies = [
            stats.norm.sf((THRESHOLDS[dataset] - gain - gain_of_seed) / np.sqrt(variance))
            for dataset in ("b", "c")
            for gain_of_seed in gains_of_seeds
        ]
        accuracy[method] = np.mean(accuracies)
    return 100 * (accuracy["one"] - accuracy["other"])


@pytest.mark.thorough
@pytest.mark.parametrize("seeds", [2, 3])
def test_intervals_of_differences_cover_the_truth_as_often_as_they_say(seeds):
    rng = np.random.default_rng(0)
    truth = true_difference(seeds)
    covered = 0
    models_at_once = 100
    for batch in range(SIMULATED // models_at_once):
        counts = simulated(rng, models_at_once, seeds)
        ood = ood_accuracies(counts, object_weights(OBJECTS, 500, batch))
        ood_of_models = {}
        for state, ood_of_state in ood.items():
            ood_of_models.setdefault(state.run.model, {})[state] = ood_of_state
        for ood_of_model in ood_of_models.values():
            no_contributions = dict.fromkeys(ood_of_model, np.zeros(1))
            effects_of_model = effects_of(ood_of_model, no_contributions, "all")
            one, other, _ = effects_of_model.values
            _, low, high = over_runs(one - other, 0.95)
            covered += low <= truth <= high
    assert 0.93 < covered / SIMULATED < 0.97


# Merges over seeds, which have one run where others have three

MERGED = [
    *RUNS,
    *itertools.product(("soup", "second_soup"), TARGETS, [0]),
]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Counts with two merges over seeds, and the tables with and without them."""
    folder = tmp_path_factory.mktemp("uneven")
    counts = counted_of(rows(runs=MERGED))
    write_counts(counts, folder / "counts.npz")
    tables = written(folder, "with", draws=100_000)

    is_no_merge = ["soup" not in state.run.method for state in counts.states]
    write_counts(counts.select_states(np.flatnonzero(is_no_merge)), folder / "counts.npz")
    tables_without_merges = written(folder, "without", draws=100_000)
    return counts, tables, tables_without_merges


def means_over_seeds(counts, method, targets):
    """RI, as a mean over targets and a method's seeds: observed, and of each replicate."""
    ri = [
        ood_of_state.after - ood_of_state.before
        for state, ood_of_state in ood_of(counts).items()
        if state.run.method == method and state.run.target in targets
    ]
    return sum(ri) / len(ri)


def test_a_merge_over_seeds_has_no_test_and_no_rank_beside_means_over_seeds(uneven):
    counts, tables, tables_without_merges = uneven
    for name in ("comparisons", "comparisons_ri", "ranking"):
        pd.testing.assert_frame_equal(tables[name], tables_without_merges[name])

    seeds_ri = tables["seeds_ri"]
    lines_of_merges = seeds_ri[seeds_ri["method"].str.contains("soup")]
    assert len(lines_of_merges) == 2 * len(TARGETS)
    for line in lines_of_merges.itertuples():
        observed, *draws = means_over_seeds(counts, line.method, [line.target])
        expected = [observed, *np.percentile(draws, [2.5, 97.5])]
        assert [line.ri, line.ci_low, line.ci_high] == pytest.approx(expected, abs=1e-5)
        assert line.seeds == 1
        assert np.isnan([line.seed_sd, line.seed_low, line.seed_high]).all()
    lines_of_others = seeds_ri.drop(lines_of_merges.index).reset_index(drop=True)
    pd.testing.assert_frame_equal(lines_of_others, tables_without_merges["seeds_ri"])

    mri_table, *_ = mri_tables(ood_of(counts), 0.95)
    mri_of_soup = mri_table.set_index("method").loc["soup"]
    assert mri_of_soup["seeds"] == 1
    assert np.isnan(mri_of_soup["seed_sd"])


def test_with_fewer_seeds_p_of_a_merge_over_seeds_is_that_of_all_sign_patterns(uneven, tmp_path):
    counts_of_three_seeds, _, _ = uneven
    is_one_of_two_seeds = [state.run.seed < 2 for state in counts_of_three_seeds.states]
    counts = counts_of_three_seeds.select_states(np.flatnonzero(is_one_of_two_seeds))
    write_counts(counts, tmp_path / "counts.npz")

    comparisons = written(tmp_path, "two", draws=100_000)["comparisons"]

    line = comparisons.set_index(["method", "other"]).loc[("ft", "soup")]
    contributions = parts_of(counts)

    def mean_contributions(method, target, seeds):
        of_seeds = [
            contributions_of_state
            for state, contributions_of_state in contributions.items()
            if (state.run.method, state.run.target) == (method, target)
        ]
        assert len(of_seeds) == seeds
        return sum(of_seeds) / seeds

    difference = np.zeros(counts.objects)
    for target in TARGETS:
        of_fine_tuning = mean_contributions("ft", target, seeds=2)
        of_soup = mean_contributions("soup", target, seeds=1)
        difference += (of_fine_tuning - of_soup) / len(TARGETS)
    assert line["p"] == pytest.approx(exact_p(difference), abs=tolerance_of(100_000))

    mri_of_fine_tuning = means_over_seeds(counts, "ft", TARGETS)
    mri_of_soup = means_over_seeds(counts, "soup", TARGETS)
    _, *draws = mri_of_fine_tuning - mri_of_soup
    interval = list(np.percentile(draws, [2.5, 97.5]))
    assert [line["ci_low"], line["ci_high"]] == pytest.approx(interval, abs=1e-5)
