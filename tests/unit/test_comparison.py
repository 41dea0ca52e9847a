"""Comparisons of methods against independent references.

What intervals and tests promise is tested by simulation.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analysis import comparison
from rib.analysis.bootstrap import object_weights, over_runs, p_over_runs
from rib.analysis.comparison import (
    Column,
    compare,
    effects_of,
    few_objects,
    holm,
    letters,
    rank,
    sign_flip_p,
)
from rib.analysis.counts import Counts, count, write_counts
from rib.analysis.ri import Ood, ood_accuracies, ood_parts
from rib.analysis.scored_state import STATE_COLUMNS
from rib.analysis.settings import MethodComparisonSettings, RIStatistics
from rib.analysis.tables import mri_tables, ri_table
from rib.config.run import PRETRAINED, RUN_COLUMNS
from tiny.rows import by_runs
from tiny.states import state_of
from tiny.tables import write
from tiny.tiers import first

DATASETS = {"a": 9, "b": 7, "c": 12}
TARGETS = ["a", "b"]
GROUPS = {"a": "g", "c": "g"}
RUNS = [
    (PRETRAINED, "none", 0),
    *(
        (method, target, seed)
        for method in ("ft", "lwf", "probe")
        for target in TARGETS
        for seed in (0, 1, 2)
    ),
]


def rows(model="m", seed=0, runs=RUNS):
    """Rows of one model; objects overlap between datasets, and some have two images."""
    rng = np.random.default_rng(seed)
    parts = []
    for method, target, number in runs:
        for dataset, n in DATASETS.items():
            objects = [f"o{i}" for i in range(n)] + ["o0", "o3"]
            labels = np.arange(len(objects))
            run = {
                "model": model,
                "method": method,
                "target": target,
                "size": "all",
                "seed": number,
                "alpha": np.nan,
            }
            answers = {"label": labels, "prediction": labels + (rng.random(len(objects)) < 0.4)}
            parts.append(pd.DataFrame({**run, "dataset": dataset, "object_id": objects, **answers}))
    return pd.concat(parts, ignore_index=True)


def counted_of(*parts):
    """Counts of rows that say themselves what they are of."""
    table = pd.concat(parts, ignore_index=True)
    row = table.groupby([*STATE_COLUMNS, "dataset"], dropna=False).cumcount()
    table = table.assign(row=row, rank=(table["label"] != table["prediction"]).astype(int))
    first = table.groupby(["dataset", "row"], as_index=False).first()
    return count(
        by_runs(table), {name: own.reset_index(drop=True) for name, own in first.groupby("dataset")}
    )


@pytest.fixture(scope="module")
def counts():
    return counted_of(rows())


def ood_of(counts, groups=None):
    """With the bootstrap of the tables that `written` writes."""
    return ood_accuracies(counts, object_weights(counts.objects, 300, seed=0), source_groups=groups)


def parts_of(counts, groups=None):
    return {
        state: after - before
        for state, (before, after) in ood_parts(counts, source_groups=groups).items()
    }


def effects(counts, groups=None):
    return effects_of(ood_of(counts, groups), parts_of(counts, groups), "all")


def written(path, tables, unfinished=(), **more):
    """The comparison of stored counts, read back by name.

    `unfinished` has model, method, target, size and seed of runs.
    """
    fit = pd.DataFrame(
        [(*run, 50.0, "yes") for run in unfinished], columns=[*RUN_COLUMNS, "fit", "unfinished"]
    )
    fit.to_csv(path / "fit.csv", index=False)
    names = comparison.COLUMNS
    draws = more.pop("draws", 500)
    compare_to = more.pop("compare_to", "ft")
    statistics = {
        "ood_datasets": list(DATASETS),
        "source_groups": None,
        "replicates": 300,
        "confidence": 0.95,
        "seed": 0,
    }
    settings = MethodComparisonSettings(
        ri=RIStatistics(**{**statistics, **more}),
        compare_to=compare_to,
        conditions="protocol paper",
        code="",
    )
    write(
        comparison.comparison_tables,
        counts=path / "counts.npz",
        fit=path / "fit.csv",
        settings=settings,
        draws=draws,
        conditions="protocol paper",
        outputs={name: path / f"{tables}_{name}.csv" for name in names},
    )
    return {name: pd.read_csv(path / f"{tables}_{name}.csv", dtype={"size": str}) for name in names}


# Parts of a difference


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "leak-free"])
def test_parts_of_objects_sum_to_ri_and_to_the_difference_of_mri(counts, groups):
    ood, parts = ood_of(counts, groups), parts_of(counts, groups)
    for state, pair in ood.items():
        assert parts[state].sum() == pytest.approx((pair.after - pair.before)[0], abs=1e-10)
    found = effects(counts, groups)
    mri = mri_tables(ood, 0.95)[0].set_index("method")["mri"]
    for a, b in itertools.combinations(range(len(found.names)), 2):
        one, other = (
            0.0 if name == PRETRAINED else mri[name] for name in (found.names[a], found.names[b])
        )
        assert (found.contributions[a, -1] - found.contributions[b, -1]).sum() == pytest.approx(
            one - other, abs=1e-10
        )


# Sign flips


def exact_p(parts):
    """Over all patterns of signs, written out."""
    sums = [abs(np.dot(signs, parts)) for signs in itertools.product((-1, 1), repeat=len(parts))]
    return np.mean(np.array(sums) >= abs(parts.sum()) - 1e-9)


def as_pair(difference):
    """Parts of two methods of which the second changes nothing, in one column."""
    return np.stack([difference, np.zeros_like(difference)])[:, None]


@pytest.mark.parametrize("seed", range(5))
def test_p_is_that_of_all_sign_patterns(seed):
    """Whole numbers, so that many patterns tie with the observed one."""
    parts = np.random.default_rng(seed).integers(-2, 4, 11).astype(float)
    expected = exact_p(parts)
    by_scipy = stats.permutation_test(
        (parts,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert by_scipy.pvalue == pytest.approx(expected)
    found = sign_flip_p(as_pair(parts), [(0, 1)], 100_000, seed)[0, 0]
    assert found == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 100_000))


def test_p_counts_the_observed_draw_and_is_one_where_nothing_differs():
    assert sign_flip_p(as_pair(np.ones(60)), [(0, 1)], 1000, 0)[0, 0] == pytest.approx(1 / 1001)
    same = np.stack([np.arange(20.0)] * 2)[:, None]
    assert sign_flip_p(same, [(0, 1)], 1000, 0)[0, 0] == 1
    assert sign_flip_p(np.zeros((2, 1, 20)), [(0, 1)], 1000, 0)[0, 0] == 1


def test_p_does_not_depend_on_how_many_signs_are_in_memory(monkeypatch):
    parts = np.random.default_rng(0).normal(size=(3, 2, 70))
    pairs = [(0, 1), (0, 2), (1, 2)]
    at_once = sign_flip_p(parts, pairs, 5000, 1)
    monkeypatch.setattr(comparison, "BLOCK_BYTES", 8 * (70 + 12) * 33)
    assert (sign_flip_p(parts, pairs, 5000, 1) == at_once).all()


def test_p_is_uniform_where_methods_can_be_exchanged():
    """2,000 pairs of methods without a difference; objects differ in how much they say."""
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2, 2000, 200)) * rng.gamma(1, size=200)
    p = sign_flip_p(parts, [(0, 1)], 4000, 1)[0]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_p_of_counts_rejects_no_true_hypothesis_too_often():
    """Answers right or wrong: differences tie often, which makes the test careful."""
    rng = np.random.default_rng(1)
    ability = rng.normal(size=(2000, 200))
    right = (ability[None] + rng.normal(size=(2, 2000, 200)) > 0.5).astype(float)
    p = sign_flip_p(right, [(0, 1)], 4000, 1)[0]
    assert 0.03 < np.mean(p <= 0.05) < 0.06


def test_p_of_few_objects_is_noted_since_rare_large_gains_make_it_small():
    """Mean difference 0: a gain on 3 % of objects makes up for small losses on the others."""
    rng, rejected = np.random.default_rng(2), {}
    for objects in (40, 1000):
        parts = np.where(rng.random((1000, objects)) < 0.03, 0.97 / 0.03, -1.0)
        flipped = sign_flip_p(np.stack([parts, np.zeros_like(parts)]), [(0, 1)], 1000, 1)[0]
        drawn = (
            parts @ object_weights(objects, 200, 1).T / objects
        )  # (tests, 1 + replicates), alike in three seeds
        over_seeds = [p_over_runs(np.stack([one] * 3)[None]) for one in drawn]
        rejected[objects] = np.mean([flipped <= 0.05, np.array(over_seeds) <= 0.05], axis=1)
        assert bool(few_objects(pd.DataFrame({"objects": [objects]}))) == (objects < 100)
    assert (rejected[40] > 0.2).all() and rejected[1000] == pytest.approx(0.05, abs=0.025)


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "leak-free"])
def test_tables_count_the_objects_that_can_contribute(tmp_path, caplog, groups):
    """Of `a` and `c` there are 9 and 12 objects, of `b` 7.

    Leak-free, the target `a` leaves those objects of `c` that it lacks.
    """
    write_counts(counted_of(rows()), tmp_path / "counts.npz")
    made = written(tmp_path, "t", source_groups=groups)
    images = rows().groupby("dataset")["object_id"].agg(set)
    of_c = images["c"] - images["a"] if groups else images["c"]
    expected = {"a": len(images["b"] | of_c), "b": len(images["a"] | images["c"])}
    assert (
        made["comparisons_ri"]["objects"] == made["comparisons_ri"]["target"].map(expected)
    ).all()
    assert set(made["comparisons"]["objects"]) == set(made["ranking"]["objects"]) == {12}
    noted = [
        record.getMessage()
        for record in caplog.records
        if "fewer than 100 objects" in record.getMessage()
    ]
    assert [note.split(":")[0] for note in noted] == ["comparisons", "comparisons_ri"]
    assert few_objects(made["seeds_ri"]) == few_objects(made["ranking"][:0]) == ""


# Holm, seeds, letters


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closure_of_bonferroni(seed):
    """A hypothesis is rejected when Bonferroni rejects every set of hypotheses that holds it."""
    p = np.random.default_rng(seed).random(6) ** 3
    sets = [s for size in range(1, 7) for s in itertools.combinations(range(6), size)]
    expected = [max(min(1, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(6)]
    assert holm(p) == pytest.approx(expected)


def test_items_share_a_letter_if_and_only_if_they_are_not_told_apart():
    rng = np.random.default_rng(0)
    for items in (1, 2, 3, 5, 8):
        for share in (0.0, 0.3, 0.7, 1.0):
            upper = np.triu(rng.random((items, items)) < share, 1)
            tied = upper | upper.T | np.eye(items, dtype=bool)
            found = letters(tied)
            for a, b in itertools.combinations(range(items), 2):
                assert bool(set(found[a]) & set(found[b])) == tied[a, b], (tied, found)
            assert all(found)


def test_more_groups_than_letters_have_a_number():
    found = letters(np.eye(30, dtype=bool))
    assert found[:2] == ["a", "b"] and found[26:28] == ["a1", "b1"] and len(set(found)) == 30


# Ranking


def made_effects(means, sds, objects=200, seeds=1):
    """Effects of methods with normal parts, in one target; the pretrained model is last."""
    rng = np.random.default_rng(0)
    parts = np.stack(
        [
            rng.normal(mean / objects, sd / objects, objects)
            for mean, sd in zip(means, sds, strict=True)
        ]
    )
    parts += (np.array(means) - parts.sum(axis=1))[:, None] / objects  # so that sums are the means
    parts = np.concatenate([parts, np.zeros((1, objects))])[:, None].repeat(2, axis=1)
    weights = object_weights(objects, 400, 0).astype(float)
    names = [f"m{i}" for i in range(len(means))]
    change = (parts @ weights.T)[:, :1, None].repeat(seeds, axis=2)
    return comparison.Effects(
        [*names, PRETRAINED],
        {"t": Column("ri", slice(1)), None: Column("mri", slice(1))},
        change,
        parts,
    )


def ranked(effects, confidence=0.95):
    compared = compare(effects, confidence, 2000, 0)
    return compared, rank(compared[compared["target"].isna()], confidence).set_index("method")


def test_methods_far_apart_have_ranks_of_their_own():
    _, table = ranked(made_effects([1.0, 9.0, -5.0], [2, 2, 2]))
    assert table.index.tolist() == ["m1", "m0", "m2"] and table["letters"].tolist() == [
        "a",
        "b",
        "c",
    ]
    assert table["rank_best"].tolist() == table["rank_worst"].tolist() == [1, 2, 3]
    assert table["pretrained"].tolist() == ["better", "better", "worse"]


def test_methods_that_the_test_cannot_tell_apart_share_a_letter():
    compared, table = ranked(made_effects([5.0, 5.1, 20.0, 0.1], [10, 10, 10, 10]))
    assert table.index.tolist() == ["m2", "m1", "m0", "m3"] and table["letters"].tolist() == [
        "a",
        "b",
        "b",
        "c",
    ]
    assert table[["rank_best", "rank_worst"]].to_numpy().tolist() == [
        [1, 1],
        [2, 3],
        [2, 3],
        [4, 4],
    ]
    assert table.loc["m3", "pretrained"] == "not told apart"
    pair = compared[
        compared["target"].isna() & (compared["method"] == "m0") & (compared["other"] == "m1")
    ].iloc[0]
    assert pair["p_holm"] > 0.05 and pair["difference"] == pytest.approx(-0.1)


def test_letters_are_by_the_adjusted_p():
    """Each pair's own p is below the level and the adjusted one above it, but for one pair.

    Not to be told apart is not a transitive relation.
    """
    effects = made_effects([3.0, 2.0, 1.0], [1, 1, 1])
    compared, _ = ranked(effects)
    of_mri = compared[compared["target"].isna()].assign(p=0.01, p_holm=0.06)
    of_mri.loc[(of_mri["method"] == "m0") & (of_mri["other"] == "m2"), "p_holm"] = 0.05
    table = rank(of_mri, 0.95).set_index("method")
    assert table["letters"].tolist() == ["a", "ab", "b"] and set(table["pretrained"]) == {
        "not told apart"
    }
    assert table[["rank_best", "rank_worst"]].to_numpy().tolist() == [[1, 2], [1, 3], [2, 3]]


# Tables


@pytest.fixture(scope="module")
def two_models():
    return counted_of(rows("m"), rows("n", 1))


@pytest.fixture
def tables(tmp_path, two_models):
    folder = tmp_path / "tables"
    folder.mkdir()
    write_counts(two_models, folder / "counts.npz")
    return folder, written(folder, "first")


def test_tables_agree_with_mri_and_its_intervals(tables, two_models):
    made = tables[1]
    mri = mri_tables(ood_of(two_models), 0.95)[0].set_index(["model", "method"])
    against = made["comparisons"].query("other == 'pretrained'").set_index(["model", "method"])
    for key, line in mri.iterrows():
        of_key = made["ranking"].set_index(["model", "method"]).loc[key]
        names = ["ci_low", "ci_high", "seeds", "seed_sd", "seed_low", "seed_high"]
        for found, value in ((against.loc[key], "difference"), (of_key, "mri")):
            expected = line[["mri", *names]].tolist()
            assert found[[value, *names]].tolist() == pytest.approx(expected, abs=1e-6)
    assert len(made["comparisons"]) == 2 * 6 and len(made["comparisons_ri"]) == 2 * 2 * 6
    assert len(made["ranking"]) == 2 * 3 and len(made["seeds_ri"]) == 2 * 2 * 3
    for name, table in made.items():
        assert list(table) == [*comparison.COLUMNS[name], "conditions"]


def test_leak_free_tables_leave_out_what_ri_leaves_out(tmp_path):
    counted = counted_of(rows())
    write_counts(counted, tmp_path / "counts.npz")
    whole, made = written(tmp_path, "whole"), written(tmp_path, "free", source_groups=GROUPS)
    mri = mri_tables(ood_of(counted, GROUPS), 0.95)[0].set_index("method")
    for column in ("mri", "ci_low", "ci_high"):
        found = made["ranking"].set_index("method")[column]
        pd.testing.assert_series_equal(
            found.sort_index(), mri[column].sort_index(), atol=1e-6, check_names=False
        )
        assert not np.allclose(
            found.sort_index(), whole["ranking"].set_index("method")[column].sort_index(), atol=0.01
        )


def test_intervals_of_differences_are_of_paired_replicates(tables, two_models):
    ood = ood_of(two_models)
    for line in tables[1]["comparisons"].query("other != 'pretrained'").itertuples():
        one, other = (
            np.array(
                [
                    [
                        ood[state_of(line.model, method, t, "all", s)].after for s in (0, 1, 2)
                    ]  # before is the same
                    for t in TARGETS
                ]
            )
            for method in (line.method, line.other)
        )
        found = line.difference, line.ci_low, line.ci_high
        assert found == pytest.approx(over_runs(one - other, 0.95), abs=1e-6)
        assert line.p == pytest.approx(p_over_runs(one - other), abs=1e-6)


def test_the_spread_over_seeds_is_that_of_the_seeds_mri(tables, two_models):
    ri = ri_table(ood_of(two_models), 0.95)
    per_seed = ri.groupby(["model", "method", "seed"])["ri"].mean()
    for line in tables[1]["ranking"].itertuples():
        values = per_seed[line.model, line.method].to_numpy()
        interval = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        assert line.seeds == 3 and line.seed_sd == pytest.approx(values.std(ddof=1), abs=1e-6)
        assert (line.seed_low, line.seed_high) == pytest.approx(interval, abs=1e-6)
    of_target = ri.set_index(["model", "method", "target"])["ri"]
    for line in tables[1]["seeds_ri"].itertuples():
        values = of_target[line.model, line.method, line.target].to_numpy()
        assert (line.ri, line.seed_sd) == pytest.approx(
            (values.mean(), values.std(ddof=1)), abs=1e-6
        )


def test_the_same_counts_and_seed_give_the_same_tables(tables):
    folder, _ = tables
    written(folder, "second")
    for name in comparison.COLUMNS:
        assert (folder / f"first_{name}.csv").read_bytes() == (
            folder / f"second_{name}.csv"
        ).read_bytes()


def test_other_models_do_not_change_a_models_comparison(tables, tmp_path):
    """Methods are compared within a model, so that another model changes nothing.

    This holds if it was scored on the same objects.
    """
    write_counts(counted_of(rows("n", 1)), tmp_path / "counts.npz")
    alone = written(tmp_path, "alone")
    for name, table in tables[1].items():
        pd.testing.assert_frame_equal(
            alone[name], table[table["model"] == "n"].reset_index(drop=True)
        )


def test_with_one_seed_the_columns_of_seeds_are_empty(tmp_path):
    one = [run for run in RUNS if run[2] == 0]
    write_counts(counted_of(rows(runs=one)), tmp_path / "counts.npz")
    for table in written(tmp_path, "t").values():
        assert set(table["seeds"]) == {1} and table[
            ["seed_sd", "seed_low", "seed_high"]
        ].isna().all(axis=None)


def test_each_size_is_compared_by_itself_and_curves_not_at_all(tmp_path):
    small = rows(seed=5, runs=RUNS[1:]).assign(size="10")
    curve = rows(seed=6, runs=[("curve", "a", 0), ("curve", "b", 0)]).assign(alpha=0.5)
    write_counts(counted_of(rows(), small, curve), tmp_path / "counts.npz")
    made = written(tmp_path, "t")
    assert made["ranking"].groupby("size").size().to_dict() == {"10": 3, "all": 3}
    assert "curve" not in set(made["comparisons"]["method"]) and len(made["comparisons"]) == 2 * 6


def test_a_method_with_an_unfinished_run_is_neither_ranked_nor_tested(tables, tmp_path):
    """As if the method had not been run for that model and size, for any target and seed.

    Its RI stays.
    """
    folder, whole = tables
    made = written(folder, "unfinished", [("m", "ft", "a", "all", 1), ("n", "lwf", "b", "10", 0)])
    write_counts(
        counted_of(rows("m").query("method != 'ft'"), rows("n", 1)), tmp_path / "counts.npz"
    )
    for name, table in written(tmp_path, "alone").items():
        if name == "seeds_ri":
            pd.testing.assert_frame_equal(made[name], whole[name])
        else:
            pd.testing.assert_frame_equal(made[name], table)
            assert "ft" not in set(made[name].query("model == 'm'")["method"])


def test_without_finished_methods_nothing_is_ranked(tables):
    folder, whole = tables
    runs = [(model, method, "b", "all", 0) for model in "mn" for method in ("ft", "lwf", "probe")]
    for name, table in written(folder, "none", runs).items():
        assert list(table) == list(whole[name]) and len(table) == (
            len(whole[name]) if "seeds" in name else 0
        )
    one = written(folder, "one", runs[1:])
    assert one["ranking"][["model", "method", "rank_worst"]].to_numpy().tolist() == [["m", "ft", 1]]
    assert one["comparisons"]["p_holm"].tolist() == one["comparisons"]["p"].tolist()


def test_a_grid_of_the_pretrained_model_alone_has_tables_without_lines(tmp_path):
    write_counts(counted_of(rows(runs=RUNS[:1])), tmp_path / "counts.npz")
    for name, table in written(tmp_path, "t").items():
        assert len(table) == 0 and list(table) == [*comparison.COLUMNS[name], "conditions"]


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "leak-free"])
def test_written_differences_and_p_are_those_of_all_sign_patterns(tmp_path, groups):
    """What each object adds to mRI of one method less another's, from rows, by pandas.

    Every one of the 2^12 patterns of signs is tried.
    """
    table = rows(seed=4, runs=[run for run in RUNS if run[2] < 2])
    write_counts(counted_of(table), tmp_path / "counts.npz")
    made = written(tmp_path, "t", source_groups=groups, draws=20_000)
    objects = sorted(set(table["object_id"]))
    right = table.assign(right=table["label"] == table["prediction"])
    answers = right.groupby(["method", "target", "seed", "dataset", "object_id"])["right"].agg(
        ["sum", "size"]
    )

    def parts(method, target):
        """(objects,) percentage points, mean over seeds."""
        found = dict.fromkeys(objects, 0.0)
        leaks = (
            set(answers.loc[PRETRAINED, "none", 0, target].index)
            if groups and target in groups
            else set()
        )
        kept = {
            name: [
                thing
                for thing in answers.loc[PRETRAINED, "none", 0, name].index
                if not (groups and name in groups and thing in leaks)
            ]
            for name in DATASETS
            if name != target
        }
        kept = {name: things for name, things in kept.items() if things}
        for name, things in kept.items():
            before = answers.loc[PRETRAINED, "none", 0, name]
            n = before.loc[things, "size"].sum()
            for seed in (0, 1):
                after = answers.loc[method, target, seed, name] if method != PRETRAINED else before
                for thing in things:
                    gain = after.loc[thing, "sum"] - before.loc[thing, "sum"]
                    found[thing] += 100 * gain / n / len(kept) / 2
        return np.array(list(found.values()))

    adds = {
        (method, target): parts(method, target)
        for method in ("ft", "lwf", "probe", PRETRAINED)
        for target in TARGETS
    }
    signs = np.array(list(itertools.product((-1, 1), repeat=len(objects))))
    for name, targets in (("comparisons", [None]), ("comparisons_ri", TARGETS)):
        for line in made[name].itertuples():
            target = getattr(line, "target", None)
            of = [target] if target else TARGETS
            difference = np.mean([adds[line.method, t] - adds[line.other, t] for t in of], axis=0)
            assert line.difference == pytest.approx(difference.sum(), abs=1e-6)
            exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9)
            assert line.p == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 20_000))
        tests = made[name].sort_values("p", kind="stable")
        assert len(tests) == 6 * len(targets)  # one family
        smallest = 0.0
        for step, line in enumerate(tests.itertuples()):
            smallest = max(smallest, min(1, (len(tests) - step) * line.p))
            assert line.p_holm == pytest.approx(smallest, abs=1e-4)


@pytest.mark.parametrize("objects", first([comparison.MANY_OBJECTS, 40_000]))
def test_of_many_objects_p_is_normal_and_as_exact_as_draws(objects):
    """Equal parts have a binomial number of positive signs.

    Parts of several sizes are compared with draws.
    """
    rng = np.random.default_rng(objects)
    for surplus in (0, 10, int(np.sqrt(objects)), int(2.2 * np.sqrt(objects)) // 2 * 2):
        parts = np.repeat(
            [1.0, -1.0], [(objects + surplus) // 2, objects - (objects + surplus) // 2]
        )
        exact = 2 * stats.binom.sf((objects + abs(parts.sum())) / 2 - 1, objects, 0.5)
        assert sign_flip_p(as_pair(parts), [(0, 1)], 0, 0)[0, 0] == pytest.approx(
            min(1, exact), rel=0.02
        )
    parts = rng.choice([0.3, 0.5, 1.0], 2 * objects) * rng.choice([-1, 1], 2 * objects)
    parts[: int(1.2 * np.sqrt(objects))] = 1
    found, drawn = (
        sign_flip_p(as_pair(parts), [(0, 1)], 0, 0),
        comparison._drawn_p(as_pair(parts), [(0, 1)], 4000, 0),
    )
    assert found[0, 0] == pytest.approx(drawn[0, 0], abs=0.03) and found[0, 0] >= drawn[0, 0] - 0.02


def test_pairs_of_which_few_objects_differ_are_drawn_whatever_the_others():
    """A pair's p doesn't depend on the pairs beside it, except for the draws."""
    rng = np.random.default_rng(6)
    parts = rng.normal(size=(3, 2, 6000))
    parts[1] = parts[0]
    parts[1, :, :9] += 1  # nine objects differ
    pairs = [(0, 1), (0, 2), (1, 2)]
    p = sign_flip_p(parts, pairs, 20_000, 0)
    assert p[0] == pytest.approx(2 / 2**9, abs=0.002)
    assert (p[1:] == sign_flip_p(parts, pairs[1:], 0, 0)).all()


def test_parts_too_small_to_be_told_from_rounding_are_ties():
    """The same sum in another order is as large as the observed one."""
    parts = np.array([0.1, 0.2, 0.3, -0.6 + 1e-13])
    assert sign_flip_p(as_pair(parts), [(0, 1)], 200, 0)[0, 0] == 1
    assert sign_flip_p(as_pair(parts * 1e-6), [(0, 1)], 200, 0)[0, 0] == 1


def test_signs_are_drawn_for_every_object_and_draw():
    """Of one object the sign changes nothing.

    Of 64 and 65 objects that are alike, p is that of as many throws of a coin.
    """
    assert sign_flip_p(as_pair(np.array([2.0])), [(0, 1)], 500, 0)[0, 0] == 1
    for objects in (63, 64, 65, 130):
        parts = np.ones(objects)
        parts[: objects // 2 - 5] = -1
        exact = 2 * stats.binom.sf((objects + abs(parts.sum())) / 2 - 1, objects, 0.5)
        found = sign_flip_p(as_pair(parts), [(0, 1)], 20_000, 1)[0, 0]
        assert found == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 20_000))
    other = sign_flip_p(as_pair(parts), [(0, 1)], 20_000, 2)[0, 0]
    assert other != found and other == pytest.approx(found, abs=0.02)


def test_a_size_has_the_methods_targets_and_seeds_that_it_was_run_with():
    """Another size with other methods, more targets and fewer seeds is no hindrance."""
    states = [state_of("m", m, t, "all", s) for m in ("x", "y") for t in ("a", "b") for s in (3, 4)]
    states += [state_of("m", "z", t, "10", 0) for t in ("a", "b", "c")]
    ood = {
        state: Ood(np.zeros(3), np.full(3, float(place)), 1, np.zeros(3), np.zeros(3))
        for place, state in enumerate(states)
    }
    parts = {state: np.array([place, 0.0]) for place, state in enumerate(states)}
    found, small = (effects_of(ood, parts, size) for size in ("all", "10"))
    assert (found.names, [*found.columns], found.values.shape) == (
        ["x", "y", PRETRAINED],
        ["a", "b", None],
        (3, 2, 2, 3),
    )
    assert found.values[1, ..., 0].tolist() == [[4, 5], [6, 7]]
    assert (small.names, [*small.columns]) == (["z", PRETRAINED], ["a", "b", "c", None])
    assert small.contributions[0, :, 0].tolist() == [8, 9, 10, 9]


# Coverage

OBJECTS, SIMULATED = 200, 2000
SIZES = {"t": 200, "b": 150, "c": 100}  # images of each dataset, one of an object
THRESHOLDS = {"t": 0.0, "b": 0.4, "c": 0.8}
GAINS = {"one": 0.35, "other": 0.1}
NOISE, OF_SEEDS = (
    0.7,
    0.1,
)  # standard deviations: of a run's answer to an image, and of the seeds' gains


def simulated(rng, how_many, seeds):
    """Counts of so many models, each scored on objects of its own.

    The grid has two methods and one target. An answer is right where the object's ease, shared by
    all runs, plus noise of the run's own exceeds the dataset's threshold less the method's gain.
    Two seeds have fixed gains, more seeds random ones.
    """
    states = [state_of(f"{i:04}", PRETRAINED, "none", "all", 0) for i in range(how_many)]
    gains = [0.0] * how_many
    for method, gain in GAINS.items():
        for seed in range(seeds):
            states += [state_of(f"{i:04}", method, "t", "all", seed) for i in range(how_many)]
            own = rng.normal(size=how_many) if seeds > 2 else np.full(how_many, 2 * seed - 1)
            gains += (gain + OF_SEEDS * own).tolist()
    ease = rng.normal(size=(how_many, OBJECTS))[[int(state.run.model) for state in states]]
    correct, places = {}, {}
    for dataset, n in SIZES.items():
        places[dataset] = np.arange(OBJECTS)[-n:]
        score = (
            ease[:, places[dataset]]
            + NOISE * rng.normal(size=(len(states), n))
            + np.array(gains)[:, None]
        )
        correct[dataset] = (score > THRESHOLDS[dataset]).astype(np.uint16)
    images = {dataset: np.ones(n, np.uint16) for dataset, n in SIZES.items()}
    return Counts(states, list(SIZES), OBJECTS, places, {}, images, correct)


def true_difference(seeds):
    """Of the methods' mRI, in percentage points.

    The mean is over all objects and, if these are random, over the seeds there could be.
    """
    fixed = (-OF_SEEDS, OF_SEEDS) if seeds == 2 else (0,)
    scale = np.sqrt(1 + NOISE**2 + (OF_SEEDS**2 if seeds > 2 else 0))
    right = {
        method: [
            stats.norm.sf((THRESHOLDS[dataset] - gain - own) / scale)
            for dataset in ("b", "c")
            for own in fixed
        ]
        for method, gain in GAINS.items()
    }
    return 100 * (np.mean(right["one"]) - np.mean(right["other"]))


@pytest.mark.thorough
@pytest.mark.parametrize("seeds", [2, 3])
def test_intervals_of_differences_cover_the_truth_as_often_as_they_say(seeds):
    rng, hits, truth, batch = np.random.default_rng(0), 0, true_difference(seeds), 100
    for number in range(SIMULATED // batch):
        counts = simulated(rng, batch, seeds)
        weights = object_weights(OBJECTS, 500, number)
        ood = ood_accuracies(counts, weights)
        by_model: dict[str, dict] = {}
        for state, pair in ood.items():
            by_model.setdefault(state.run.model, {})[state] = pair
        for pairs in by_model.values():
            found = effects_of(pairs, dict.fromkeys(pairs, np.zeros(1)), "all")
            _, low, high = over_runs(found.values[0] - found.values[1], 0.95)
            hits += low <= truth <= high
    assert 0.93 < hits / SIMULATED < 0.97


def test_effects_are_of_the_mean_over_seeds_and_targets():
    """Replicate by replicate, from numbers made up."""
    rng = np.random.default_rng(0)
    states = [state_of("m", m, t, "all", s) for m in ("x", "y") for t in ("a", "b") for s in (0, 1)]
    ood = {state: Ood(rng.random(5), rng.random(5), 1, *rng.random((2, 5))) for state in states}
    parts = {state: rng.random(4) for state in states}
    found = effects_of(ood, parts, "all")
    change = {state: pair.after - pair.before for state, pair in ood.items()}
    mine = [state for state in states if state.run.method == "y"]
    assert found.values[1].reshape(4, 5) == pytest.approx(
        np.array([change[state] for state in mine])
    )
    assert found.contributions[1, 1] == pytest.approx(
        np.mean([parts[s] for s in mine if s.run.target == "b"], axis=0)
    )
    assert found.contributions[1, 2] == pytest.approx(np.mean([parts[s] for s in mine], axis=0))
    assert (found.values[2] == 0).all() and found.names == ["x", "y", PRETRAINED]


# Merges over seeds, which have one run where others have three

MERGED = [
    *RUNS,
    *(("soup", target, 0) for target in TARGETS),
    *(("second_soup", target, 0) for target in TARGETS),
]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Counts with two merges over seeds, and the tables with and without them."""
    folder, counts = tmp_path_factory.mktemp("uneven"), counted_of(rows(runs=MERGED))
    without = counts.select_states(
        [i for i, state in enumerate(counts.states) if "soup" not in state.run.method]
    )
    found = []
    for name, own in (("with", counts), ("without", without)):
        write_counts(own, folder / "counts.npz")
        found.append(written(folder, name, draws=100_000))
    return counts, *found


def means_over_seeds(counts, method, targets):
    """RI, as a mean over targets and a method's seeds: observed, and of each replicate.

    The pretrained model's is 0.
    """
    ood, total, runs = ood_of(counts), 0.0, 0
    for state, pair in ood.items():
        if state.run.method == method and state.run.target in targets:
            total, runs = total + pair.after - pair.before, runs + 1
    return total / max(runs, 1) * np.ones(301)


def test_a_merge_over_seeds_has_no_test_and_no_rank_beside_means_over_seeds(uneven):
    counts, tables, without = uneven
    for name in ("comparisons", "comparisons_ri", "ranking"):
        pd.testing.assert_frame_equal(tables[name], without[name])
    own = tables["seeds_ri"]
    merged = own[own["method"].str.contains("soup")]
    assert len(merged) == 2 * len(TARGETS)
    for line in merged.to_dict("records"):
        replicates = means_over_seeds(counts, line["method"], [line["target"]])
        expected = [replicates[0], *np.percentile(replicates[1:], [2.5, 97.5])]
        assert [line[key] for key in ("ri", "ci_low", "ci_high")] == pytest.approx(
            expected, abs=1e-5
        )
        assert (
            line["seeds"] == 1
            and np.isnan([line[key] for key in ("seed_sd", "seed_low", "seed_high")]).all()
        )
    pd.testing.assert_frame_equal(
        own.drop(merged.index).reset_index(drop=True), without["seeds_ri"]
    )
    mri = mri_tables(ood_of(counts), 0.95)[0].set_index("method")
    assert mri.loc["soup", "seeds"] == 1 and np.isnan(mri.loc["soup", "seed_sd"])


def test_with_fewer_seeds_p_of_a_merge_over_seeds_is_that_of_all_sign_patterns(uneven, tmp_path):
    counts = uneven[0].select_states(
        [i for i, state in enumerate(uneven[0].states) if state.run.seed < 2]
    )
    write_counts(counts, tmp_path / "counts.npz")
    line = written(tmp_path, "two", draws=100_000)["comparisons"].query(
        "method == 'ft' and other == 'soup'"
    )
    parts, terms = parts_of(counts), np.zeros(counts.objects)
    for target, (method, sign) in itertools.product(TARGETS, (("ft", 1), ("soup", -1))):
        own = [
            part
            for state, part in parts.items()
            if state.run.method == method and state.run.target == target
        ]
        assert len(own) == {"ft": 2, "soup": 1}[method]
        terms += sign * sum(own) / len(own) / len(TARGETS)
    assert line["p"].item() == pytest.approx(exact_p(terms), abs=4 * np.sqrt(0.25 / 100_000))
    low, high = line["ci_low"].item(), line["ci_high"].item()
    replicates = means_over_seeds(counts, "ft", TARGETS) - means_over_seeds(counts, "soup", TARGETS)
    assert [low, high] == pytest.approx(list(np.percentile(replicates[1:], [2.5, 97.5])), abs=1e-5)
