"""Merges over seeds, the variants of a sweep and targets.

Their runs and parents, and the table of merges over targets.
"""

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rib.analyses.cost.tables import cost_table
from rib.analyses.over_targets.settings import OverTargetsSettings
from rib.analyses.over_targets.tables import over_targets_table
from rib.analysis.bootstrap import object_weights
from rib.analysis.counts import COLUMNS, RowFiles
from rib.analysis.fit import fit_table
from rib.analysis.settings import FitRule
from rib.base.errors import UserError
from rib.config.run import RUN_COLUMNS, Run, parent_of
from rib.evaluation.merge_files import store_merge, write_merge
from rib.evaluation.settings import MergeSettings
from rib.methods import greedy_soup, soup
from tiny.grids import grid, project_catalog
from tiny.tables import write
from tiny.training import CODE, RUN

SOUP = {"algorithm": "soup", "recipes": None, "settings": {}}
TWO = {"models": ["efficientnet_lite0"], "targets": ["noto", "openmoji"], "seeds": [4, 2]}
SWEEP = {"ft": {"lr": [0.1, 0.2]}}


def merges(chosen, name):
    return [run for run in [*chosen.runs(), *chosen.runs_over_targets()] if run.method == name]


# Runs and their parents


def test_a_key_says_what_differs_from_the_merges_run():
    run = Run("m", "a", "soup", "all", 4)
    assert replace(run, **parent_of("ft-lr0.1")) == Run("m", "a", "ft-lr0.1", "all", 4)
    assert replace(run, **parent_of("ft, seed 12")) == Run("m", "a", "ft", "all", 12)
    assert replace(run, **parent_of("ft, target b_2")) == Run("m", "b_2", "ft", "all", 4)


def test_a_merge_over_seeds_has_one_run_of_the_first_seed_for_each_target_and_size():
    chosen = grid(**TWO, methods=["soup_seeds", "lwf"], train_subset=["all", 50])
    expected = {(target, size, 4) for target in TWO["targets"] for size in ("all", "50")}
    assert {(run.target, run.size, run.seed) for run in merges(chosen, "soup_seeds")} == expected
    assert (
        len(merges(chosen, "soup_seeds")) == 4
        and len(merges(chosen, "ft")) == len(merges(chosen, "lwf")) == 8
    )
    assert (
        chosen.parents_of("soup_seeds") == ["ft, seed 4", "ft, seed 2"]
        and not chosen.runs_over_targets()
    )


def test_a_merge_over_targets_has_a_run_without_target_for_each_seed_and_size_and_none_with_ri():
    chosen = grid(**TWO, methods=["soup_targets"], train_subset=["all", 50])
    assert chosen.parents_of("soup_targets") == ["ft, target noto", "ft, target openmoji"]
    assert "soup_targets" not in {run.method for run in chosen.runs()}
    expected = set(
        itertools.product(["efficientnet_lite0"], ["none"], ["soup_targets"], ["all", "50"], [4, 2])
    )
    found = chosen.runs_over_targets()
    assert len(found) == 4 and {tuple(vars(run).values()) for run in found} == expected


def test_a_merge_over_methods_keeps_the_names_of_methods_as_keys():
    chosen = grid(**TWO, methods=["soup", "lp_ft"])
    assert chosen.parents_of("soup") == ["ft", "ewc", "lwf"] and chosen.parents_of("lp_ft") == [
        "linear_probe"
    ]
    assert len(merges(chosen, "soup")) == 4


def test_several_parents_over_seeds_are_all_merged(with_entries):
    catalog = with_entries(methods={"mine": {**SOUP, "over": "seeds", "parents": ["ft", "lwf"]}})
    keys = grid(catalog, **TWO, methods=["mine"]).parents_of("mine")
    assert keys == ["ft, seed 4", "ft, seed 2", "lwf, seed 4", "lwf, seed 2"]


def test_a_merge_over_variants_has_all_with_a_recipe_and_is_not_swept_itself():
    settings = {"ft": {"lr": [0.1, 0.2], "dropout": [0, 0.5]}}
    chosen = grid(
        **TWO, methods=["soup_sweep"], method_settings=settings, recipes=["adamw", "paper"]
    )
    assert len(chosen.methods) == 8 + 2
    swept = [f"lr{lr}-dropout{rate}" for lr in ("0.1", "0.2") for rate in ("0", "0.5")]
    found = {
        name: sorted(chosen.methods[name].parents) for name in ("soup_sweep", "soup_sweep-paper")
    }
    assert found["soup_sweep"] == sorted(f"ft-{values}" for values in swept)
    assert found["soup_sweep-paper"] == sorted(f"ft-paper-{values}" for values in swept)
    assert chosen.parents_of("soup_sweep") == list(chosen.methods["soup_sweep"].parents)
    assert chosen.methods["soup_sweep-paper"].label == "soup over a sweep, SGD"


def test_a_parent_without_a_sweep_is_a_variant_of_a_merge_over_variants(with_entries):
    """The sweep of the merge's own settings gives variants of the merge."""
    mine = {**SOUP, "over": "variants", "parents": ["ft", "lwf"]}
    chosen = grid(
        with_entries(methods={"mine": mine}),
        methods=["mine"],
        method_settings={**SWEEP, "mine": {"pretrained": [True, False]}},
    )
    assert {name for name in chosen.methods if "mine" in name} == {
        "mine-pretrainedTrue",
        "mine-pretrainedFalse",
    }
    assert chosen.methods["mine-pretrainedTrue"].parents == ("ft-lr0.1", "ft-lr0.2", "lwf")


def test_a_recipe_that_is_not_swept_has_no_merge_over_variants(with_entries):
    family = {"recipes": {"paper": {"ft": {"lr": [0.1, 0.2]}}, "adamw": {"ft": {"lr": 0.3}}}}
    defaults = {**grid().family.defaults, "targets": ["my_set"]}
    catalog = with_entries(
        families={"mine": {**family, "defaults": defaults}}, datasets={"my_set": {"family": "mine"}}
    )
    choices = {"family": "mine", "models": ["efficientnet_lite0"], "methods": ["soup_sweep"]}
    methods = grid(catalog, **choices, recipes=["adamw", "paper"]).methods
    assert [name for name in methods if "soup" in name] == ["soup_sweep-paper"]
    with pytest.raises(
        UserError, match="'soup_sweep' cannot be run: it merges a sweep with one recipe"
    ):
        grid(catalog, **choices, recipes=["adamw"])


def test_a_swept_parent_gives_a_merge_over_seeds_for_each_variant():
    chosen = grid(**TWO, methods=["soup_seeds"], method_settings=SWEEP)
    assert chosen.parents_of("soup_seeds-lr0.2") == ["ft-lr0.2, seed 4", "ft-lr0.2, seed 2"]


# What cannot be merged


NO_PARENTS = [
    ("soup_seeds", {"seeds": [3]}, "it merges over seeds, and there is one; list several in seeds"),
    (
        "soup_sweep",
        {},
        "it merges a sweep with one recipe; sweep a setting of ft in method_settings",
    ),
    ("soup_sweep", {"recipes": ["adamw", "paper"]}, "it merges a sweep with one recipe"),
    ("soup_targets", {"targets": ["noto"]}, "it merges over targets; choose several"),
    ("soup_targets", {"datasets": ["noto", "openmoji"]}, "no dataset is left to score it on"),
    (
        "soup_targets",
        {"datasets": ["noto", "openmoji", "noto_corrupted"]},
        "no dataset is left to score it on",
    ),
    ("greedy_soup_sweep", {"method_settings": SWEEP}, "it selects on held-out images"),
]


@pytest.mark.parametrize(("method", "choices", "why"), NO_PARENTS)
def test_a_merge_without_parents_or_datasets_is_refused_by_name_and_left_out_with_a_notice(
    method, choices, why
):
    choices = {**TWO, **choices}
    with pytest.raises(
        UserError, match=f"^config, methods: '{method}' cannot be run: {re.escape(why)}[^.]*\\.$"
    ):
        grid(**choices, methods=["ft", method])
    chosen = grid(**choices, methods="all")
    assert not [name for name in chosen.methods if name.startswith(method)]
    (notice,) = (
        notice for notice in chosen.notices if notice.startswith(f"method '{method}' is left out")
    )
    assert why in notice


def test_merges_over_targets_are_scored_where_neither_targets_nor_their_sources_are(with_entries):
    catalog = with_entries(datasets={"mine": {"source_group": "of_openmoji"}})
    datasets = {
        name: replace(entry) for name, entry in catalog.datasets.items() if entry.family == "emoji"
    }
    chosen = grid(catalog, **TWO, methods=["soup_targets"])
    assert chosen.not_trained_on == [name for name in chosen.datasets if name not in TWO["targets"]]
    fluent = grid(catalog, methods=["soup_targets"], targets=["noto", "fluent_flat"])
    left = {
        name for name, entry in datasets.items() if entry.source_group not in ("noto", "fluent")
    } - {"noto"}
    assert set(fluent.not_trained_on) == left and "mine" in left and "openmoji" in left


def test_merges_over_targets_are_scored_on_what_counts_in_ri(with_entries):
    """Neither in distribution, nor on variants.

    Left out are variants of datasets that are there, and variants of targets.
    """
    catalog = with_entries(
        datasets={
            "mine": {"variant_of": "noto"},
            "other": {"variant_of": "openmoji"},
            "own": {"role": "in_distribution"},
        }
    )
    found = grid(catalog, methods=["soup_targets"], targets=["noto", "fluent_flat"])
    assert {"mine", "other", "own"} <= set(found.datasets) and "openmoji" in found.not_trained_on
    assert not {"mine", "other", "own", "noto"} & set(found.not_trained_on)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": "ft", "over": "seeds"}, "methods.yaml, mine: over is only for merges"),
        (
            {"over": "targets", "algorithm": "greedy_soup"},
            "mine: over: targets is not for a select",
        ),
        (
            {"over": "targets", "algorithm": "wise_ft_curve", "settings": {"steps": 2}},
            "mine: over: targets is not for a curve",
        ),
        ({"over": "runs"}, "methods.yaml: .*'mine.over' is 'runs'"),
    ],
)
def test_a_bad_entry_is_refused_in_one_sentence(with_entries, changes, said):
    entry = {**SOUP, **({} if changes.get("algorithm") == "ft" else {"parents": ["ft"]}), **changes}
    with pytest.raises(UserError, match=said):
        _ = with_entries(methods={"mine": entry}).methods


def test_a_sweep_of_a_parent_of_a_merge_over_targets_is_nothing_to_select():
    choices = {**TWO, "methods": ["soup_targets"], "method_settings": SWEEP, "select": "oracle"}
    assert grid(**choices).selection.variants == {"ft": ["ft-lr0.1", "ft-lr0.2"]}


# Weights


KEYS = ["ft, seed 0", "ft, seed 1", "ft, seed 2"]


def test_the_pretrained_model_is_an_ingredient_of_a_soup_or_not():
    assert soup.weights(KEYS, pretrained=False) == dict.fromkeys(KEYS, 1 / 3)
    assert soup.weights(KEYS) == dict.fromkeys(["pretrained", *KEYS], 1 / 4)
    settings = {
        name: project_catalog().methods[name].settings
        for name in ("soup", "soup_seeds", "greedy_soup_sweep")
    }
    assert [own["pretrained"] for own in settings.values()] == [True, False, False]


def test_recipe_1_is_that_of_the_paper():
    """Ingredients by accuracy, best first; one that makes the average worse is left out.

    Accuracies are those of a table.
    """
    alone = {"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.6, "pretrained": 0.95}
    together = {"bc": 0.9, "bcd": 0.8, "abc": 0.91, "abcp": 0.0}

    def score(weights):
        names = sorted(weights)
        assert all(weight == pytest.approx(1 / len(names)) for weight in weights.values())
        return alone[names[0]] if len(names) == 1 else together["".join(name[0] for name in names)]

    assert greedy_soup.select(list("abcd"), score, pretrained=False) == dict.fromkeys("bca", 1 / 3)


def written(folder, source, **settings):
    """What is written of a merge over KEYS."""
    manifests = [folder / f"{place}.json" for place in range(len(KEYS))]
    for place, path in enumerate(manifests):
        path.write_text(json.dumps({"files": {"checkpoint.safetensors": f"hash{place}"}}))
    (folder / "mine.py").write_text(source)
    write_merge(
        run=RUN,
        manifests=manifests,
        settings=MergeSettings(
            algorithm=str(folder / "mine.py"),
            settings=settings,
            parents=KEYS,
            form="weights",
            code=CODE,
        ),
        merge_file=folder / "merge.json",
    )
    return json.loads((folder / "merge.json").read_text())


LISTED = (
    "def weights(parents, *, weights: list):\n"
    "    return {key: weights[i] for i, key in enumerate(parents)}\n"
)
STRICT = (
    "def weights(parents, *, weights: list):\n    return dict(zip(parents, weights, strict=True))\n"
)


def test_weights_of_a_users_merge_are_stored_by_key(tmp_path):
    stored = written(tmp_path, STRICT, weights=[0.5, 0.25, 0.25])
    assert stored["states"] == [
        {"alpha": None, "weights": dict(zip(KEYS, [0.5, 0.25, 0.25], strict=True))}
    ]
    assert stored["checkpoints"] == {key: f"hash{place}" for place, key in enumerate(KEYS)}


@pytest.mark.parametrize(
    ("source", "weights", "said"),
    [
        (LISTED, [0.5, 0.5], "mine.py: list index out of range; correct the method's entry."),
        (STRICT, [0.5, 0.5], "mine.py: zip.*; correct the method's entry."),
        (STRICT, [0.5, 0.5, 0.5], "mine.py: the weights add up to 1.5, not 1; correct it."),
        (
            "def weights(parents, *, weights):\n    return {'ft': 1.0}\n",
            [],
            "the merge weighs 'ft', which is not merged; "
            "name only ft, seed 0, ft, seed 1, ft, seed 2, pretrained.",
        ),
    ],
    ids=["too short", "zipped", "sum", "unknown"],
)
def test_what_is_wrong_with_a_users_merge_is_one_sentence(tmp_path, source, weights, said):
    with pytest.raises(UserError, match=f"^{said}$"):
        written(tmp_path, source, weights=weights)
    assert not (tmp_path / "merge.json").exists()


def test_a_selection_of_what_is_not_merged_is_refused(tmp_path):
    from rib.evaluation.merge_files import NetworkState

    with pytest.raises(UserError, match="^the merge weighs 'b', which is not merged"):
        store_merge(tmp_path / "r.json", [NetworkState(None, {"a": 0.5, "b": 0.5})], ["a"], [], [])


# What is made of the runs


@pytest.mark.parametrize(("lowest", "mark"), [(0.94, "yes"), (0.96, "no")])
def test_a_merge_is_unfinished_if_one_of_all_its_parents_is(lowest, mark):
    accuracy = pd.DataFrame([("m", "soup", "a", "all", 0, "a", 80.0)])
    accuracy.columns = ["model", "method", "target", "size", "seed", "dataset", "accuracy"]
    run = Run("m", "a", "soup", "all", 0)
    fits = {run: {"ft, seed 0": 1.0, "ft, seed 1": 1.0, "ft, seed 2": lowest, "lwf, seed 2": 0.1}}
    rule = FitRule(can_fit=["ft"], threshold=0.95, whole_targets=True)
    (line,) = fit_table(fits, accuracy, rule).to_dict("records")
    assert (line["unfinished"], line["fit"]) == (mark, 80.0)


def test_the_cost_of_a_merge_over_seeds_is_that_of_all_its_trainings():
    lines = [("evaluate", "m", "none", "pretrained", "all", "0", 5.0)]
    for target, seed in itertools.product("ab", "012"):
        lines += [
            (stage, "m", target, "ft", "all", seed, took)
            for stage, took in (("finetune", 100.0), ("evaluate", 2.0))
        ]
    lines += [
        (stage, "m", target, "soup", "all", "0", 3.0)
        for target in "ab"
        for stage in ("merge", "evaluate")
    ]
    jobs = pd.DataFrame(
        lines, columns=["stage", "model", "target", "method", "size", "seed", "seconds"]
    )
    jobs = jobs.assign(
        device="", images=0, megabytes=0.0, record=[f"{i}.json" for i in range(len(jobs))]
    )
    table = cost_table(jobs, {"ft": [], "soup": ["ft"]}).set_index("method")
    assert table.loc["ft", ["finetune", "merge", "evaluate", "jobs"]].tolist() == [200, 0, 9, 5]
    assert table.loc["soup", ["finetune", "merge", "evaluate", "jobs"]].tolist() == [600, 6, 11, 11]


OBJECTS = {"a": 9, "b": 6, "c": 8}  # objects of datasets, of which a was trained on
RIGHT = {"pretrained": 0.5, "soup_targets": 0.7}


@pytest.fixture
def tabulated(tmp_path):
    """The table of two seeds of a merge over targets, and the rows that it is of."""
    rng, rows, manifests = np.random.default_rng(1), [], []
    for name, n in OBJECTS.items():
        index = pd.DataFrame(
            {"object_id": [f"o{i}" for i in range(n)] + ["o0"], "label": [*range(n), 0]}
        )
        (tmp_path / f"{name}/none").mkdir(parents=True)
        index.to_parquet(tmp_path / f"{name}/none/index.parquet")
    for method, seed in (("pretrained", 0), ("soup_targets", 0), ("soup_targets", 1)):
        parts = []
        for name in OBJECTS if method == "pretrained" else ("b", "c"):
            n = OBJECTS[name] + 1
            run = {
                "model": "m",
                "method": method,
                "target": "none",
                "size": "all",
                "seed": seed,
                "alpha": np.nan,
            }
            answers = {"row": np.arange(n), "rank": (rng.random(n) > RIGHT[method]).astype(int)}
            parts.append(
                pd.DataFrame({**run, "dataset": name, **answers})[[*RUN_COLUMNS, *COLUMNS]]
            )
        folder = tmp_path / f"m/none/{method}/all/{seed}"
        folder.mkdir(parents=True)
        rows.append(folder / "g.parquet")
        pd.concat(parts).to_parquet(rows[-1])
        fit = (
            {}
            if method == "pretrained"
            else {"ft, target a": 1.0, "ft, target z": 0.9 if seed else 1.0}
        )
        manifests.append(folder / "g.manifest.json")
        manifests[-1].write_text(json.dumps({"device": "cpu", "fit": fit}))
    settings = OverTargetsSettings(
        datasets=["b", "c"],
        fit=FitRule(can_fit=["ft"], threshold=0.95, whole_targets=True),
        replicates=200,
        confidence=0.9,
        seed=3,
        conditions="protocol paper",
        code="",
    )
    indexes = [tmp_path / f"{name}/none/index.parquet" for name in OBJECTS]
    write(
        over_targets_table,
        files=RowFiles(rows=rows, indexes=indexes),
        manifests=manifests,
        settings=settings,
        conditions=settings.conditions,
        table=tmp_path / "table.csv",
    )
    return pd.read_csv(tmp_path / "table.csv"), pd.concat(map(pd.read_parquet, rows))


def slow_mean(images, drawn):
    """Mean accuracy over b and c in percent, if each object counts as often as it was drawn."""
    found = []
    for name, own in images.items():
        right = shown = 0
        for row, rank in own:
            times = int(
                drawn[row if row < OBJECTS[name] else 0]
            )  # the last image is of the first object
            right, shown = right + times * (rank == 0), shown + times
        found.append(100 * right / shown if shown else np.nan)
    return sum(found) / 2


def test_merges_over_targets_are_scored_on_what_was_not_trained_on_over_the_same_draws(tabulated):
    table, rows = tabulated
    assert table["seed"].tolist() == [0, 1] and set(table["method"]) == {"soup_targets"}
    assert set(table["datasets"]) == {2} and set(table["images"]) == {7 + 9}
    weights = object_weights(
        8, 200, 3
    )  # objects o0 to o7 of b and c, whose places are those of their names
    for line in table.itertuples():
        sides = [
            rows[rows["method"] == "pretrained"],
            rows[(rows["method"] != "pretrained") & (rows["seed"] == line.seed)],
        ]
        images = [
            {name: own[own["dataset"] == name][["row", "rank"]].to_numpy() for name in "bc"}
            for own in sides
        ]
        before, after = (np.array([slow_mean(own, drawn) for drawn in weights]) for own in images)
        assert (line.before, line.after) == pytest.approx((before[0], after[0]), abs=1e-5)
        low, high = np.nanpercentile((after - before)[1:], [5, 95])
        assert (line.difference, line.ci_low, line.ci_high) == pytest.approx(
            (line.after - line.before, low, high), abs=1e-5
        )


def test_a_merge_over_targets_is_marked_if_a_parent_is_unfinished(tabulated):
    assert tabulated[0].set_index("seed")["unfinished"].to_dict() == {0: 0, 1: 1}
