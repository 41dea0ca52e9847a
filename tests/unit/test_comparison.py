"""Comparisons of methods against independent references.

What intervals and tests promise is tested by simulation.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_contrast import exact_p, tolerance_of

from rib.analyses.comparison import tables as comparison
from rib.analyses.comparison.tables import measures_of_methods, rank, tables_of
from rib.schema.run import PRETRAINED, RUN_COLUMNS
from rib.statistics.bootstrap import object_weights, over_runs, p_over_runs
from rib.statistics.contrast import Measure, Measured
from rib.statistics.counts import Counts, count, write_counts
from rib.statistics.ri import ood_accuracies, ood_parts
from rib.statistics.scored_state import STATE_COLUMNS
from rib.statistics.statistics_settings import RIStatistics
from rib.statistics.tables import mri_tables, ri_table
from tiny.tables.rows import by_runs
from tiny.tables.states import state_of
from tiny.tables.tables import write

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


# Ranking


def made_measures(means, sds, objects=200):
    """RI and mRI of methods with normal parts, in one target; the pretrained model is last."""
    rng = np.random.default_rng(0)
    contributions = np.stack(
        [
            rng.normal(mean / objects, sd / objects, objects)
            for mean, sd in zip(means, sds, strict=True)
        ]
    )
    # so that sums are the means
    contributions += (np.array(means) - contributions.sum(axis=1))[:, None] / objects
    weights = object_weights(objects, 400, 0).astype(float)
    units = {}
    for i, of_method in enumerate(contributions):
        units[f"m{i}"] = Measured((of_method @ weights.T)[None, None], of_method)
    units[PRETRAINED] = Measured(np.zeros((1, 1, len(weights))), np.zeros(objects))
    return [Measure("t", "ri", units), Measure("mri", "mri", units)]


def compare_by_mri(measures):
    """Comparisons of methods by mRI."""
    return tables_of(measures, 0.95, 2000, 0, PRETRAINED)["comparisons"]


def test_methods_far_apart_have_ranks_of_their_own():
    comparisons = compare_by_mri(made_measures([1.0, 9.0, -5.0], [2, 2, 2]))
    ranking = rank(comparisons, 0.95)
    assert ranking["method"].tolist() == ["m1", "m0", "m2"]
    assert ranking["letters"].tolist() == ["a", "b", "c"]
    assert ranking["rank_best"].tolist() == [1, 2, 3]
    assert ranking["rank_worst"].tolist() == [1, 2, 3]
    assert ranking["pretrained"].tolist() == ["better", "better", "worse"]


def test_methods_that_do_not_differ_clearly_share_a_letter():
    comparisons = compare_by_mri(made_measures([5.0, 5.1, 20.0, 0.1], [10, 10, 10, 10]))
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
    comparisons = compare_by_mri(made_measures([3.0, 2.0, 1.0], [1, 1, 1]))
    comparisons = comparisons.assign(p=0.01, p_holm=0.06)
    differs_clearly = (comparisons["method"] == "m0") & (comparisons["other"] == "m2")
    comparisons.loc[differs_clearly, "p_holm"] = 0.05

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
            *_, mri = measures_of_methods(ood_of_model, no_contributions, "all", ())
            _, low, high = over_runs(mri.difference("one", "other"), 0.95)
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
