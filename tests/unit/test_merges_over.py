"""Merges over seeds, the variants of a sweep and targets.

Their runs and parents, and the table of merges over targets.
"""

import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from rib.analyses.cost.tables import cost_table
from rib.analyses.over_targets.tables import over_targets_table
from rib.base.errors import UserError
from rib.base.params import to_params
from rib.evaluation.evaluation_settings import MergeSettings
from rib.evaluation.networks import merged_states
from rib.methods import soup
from rib.schema.run import RUN_COLUMNS, Run, parent_of
from rib.statistics.bootstrap import object_weights
from rib.statistics.counts import COLUMNS, RowFiles
from rib.statistics.fit import fit_table
from rib.statistics.statistics_settings import FitRule
from tiny.models.training import RUN
from tiny.projects.grids import grid
from tiny.tables.tables import write

# An entry of the catalogue.
SOUP = {
    "algorithm": "soup",
    "form": "coefficients",
    "recipes": None,
    "settings": {"pretrained": True},
}
# Choices of config.
TWO = {"models": ["efficientnet_lite0"], "targets": ["noto", "openmoji"], "seeds": [4, 2]}
SWEEP = {"ft": {"lr": [0.1, 0.2]}}  # of method_settings
SWEEP_OF_TWO_SETTINGS = {"ft": {"lr": [0.1, 0.2], "dropout": [0, 0.5]}}


def runs_of_method(chosen, method):
    """The runs of a method of a grid, those without target among them."""
    return [run for run in [*chosen.runs(), *chosen.runs_over_targets()] if run.method == method]


# Runs and their parents


def test_a_key_says_what_differs_from_the_merges_run():
    merge = Run("m", "a", "soup", "all", 4)
    variant = replace(merge, **parent_of("ft-lr0.1"))
    other_seed = replace(merge, **parent_of("ft, seed 12"))
    other_target = replace(merge, **parent_of("ft, target b_2"))
    assert variant == Run("m", "a", "ft-lr0.1", "all", 4)
    assert other_seed == Run("m", "a", "ft", "all", 12)
    assert other_target == Run("m", "b_2", "ft", "all", 4)


def test_a_merge_over_seeds_has_one_run_of_the_first_seed_for_each_target_and_size():
    # when
    chosen = grid(**TWO, methods=["soup_seeds", "lwf"], train_subset=["all", 50])
    # then
    first_seed = 4
    merges = runs_of_method(chosen, "soup_seeds")
    assert len(merges) == 4
    assert {(merge.target, merge.size, merge.seed) for merge in merges} == {
        ("noto", "all", first_seed),
        ("noto", "50", first_seed),
        ("openmoji", "all", first_seed),
        ("openmoji", "50", first_seed),
    }
    # and methods that are trained have runs of both seeds
    assert len(runs_of_method(chosen, "ft")) == 8
    assert len(runs_of_method(chosen, "lwf")) == 8
    assert chosen.parents_of("soup_seeds") == ["ft, seed 4", "ft, seed 2"]
    assert chosen.runs_over_targets() == []


def test_a_merge_over_targets_has_a_run_without_target_for_each_seed_and_size_and_none_with_ri():
    # when
    chosen = grid(**TWO, methods=["soup_targets"], train_subset=["all", 50])
    # then
    model = "efficientnet_lite0"
    runs_over_targets = chosen.runs_over_targets()
    assert len(runs_over_targets) == 4
    assert set(runs_over_targets) == {
        Run(model, "none", "soup_targets", "all", 4),
        Run(model, "none", "soup_targets", "all", 2),
        Run(model, "none", "soup_targets", "50", 4),
        Run(model, "none", "soup_targets", "50", 2),
    }
    methods_with_ri = {run.method for run in chosen.runs()}
    assert "ft" in methods_with_ri
    assert "soup_targets" not in methods_with_ri
    assert chosen.parents_of("soup_targets") == ["ft, target noto", "ft, target openmoji"]


def test_a_merge_over_methods_keeps_the_names_of_methods_as_keys():
    chosen = grid(**TWO, methods=["soup", "lp_ft"])
    targets_and_seeds = 2 * 2
    assert chosen.parents_of("soup") == ["ft", "ewc", "lwf"]
    assert chosen.parents_of("lp_ft") == ["linear_probe"]
    assert len(runs_of_method(chosen, "soup")) == targets_and_seeds


def test_several_parents_over_seeds_are_all_merged(with_entries):
    soup_of_two = {**SOUP, "over": "seeds", "parents": ["ft", "lwf"]}
    catalog = with_entries(methods={"mine": soup_of_two})
    chosen = grid(catalog, **TWO, methods=["mine"])
    assert chosen.parents_of("mine") == ["ft, seed 4", "ft, seed 2", "lwf, seed 4", "lwf, seed 2"]


def test_a_merge_over_variants_has_all_with_a_recipe_and_is_not_swept_itself():
    # when
    chosen = grid(
        **TWO,
        methods=["soup_sweep"],
        method_settings=SWEEP_OF_TWO_SETTINGS,
        recipes=["adamw", "paper"],
    )
    # then each recipe has four variants and a merge
    assert len(chosen.methods) == 2 * 4 + 2
    merge = chosen.methods["soup_sweep"]
    merge_with_sgd = chosen.methods["soup_sweep-paper"]
    assert sorted(merge.parents) == [
        "ft-lr0.1-dropout0",
        "ft-lr0.1-dropout0.5",
        "ft-lr0.2-dropout0",
        "ft-lr0.2-dropout0.5",
    ]
    assert sorted(merge_with_sgd.parents) == [
        "ft-paper-lr0.1-dropout0",
        "ft-paper-lr0.1-dropout0.5",
        "ft-paper-lr0.2-dropout0",
        "ft-paper-lr0.2-dropout0.5",
    ]
    assert chosen.parents_of("soup_sweep") == list(merge.parents)
    assert merge_with_sgd.label == "soup over a sweep, SGD"


def test_a_parent_without_a_sweep_is_a_variant_of_a_merge_over_variants(with_entries):
    """The sweep of the merge's own settings gives variants of the merge."""
    # given
    soup_of_two = {**SOUP, "over": "variants", "parents": ["ft", "lwf"]}
    catalog = with_entries(methods={"mine": soup_of_two})
    sweeps = {**SWEEP, "mine": {"pretrained": [True, False]}}
    # when
    chosen = grid(catalog, methods=["mine"], method_settings=sweeps)
    # then
    merges = {name for name in chosen.methods if "mine" in name}
    assert merges == {"mine-pretrainedTrue", "mine-pretrainedFalse"}
    for merge in merges:
        assert chosen.methods[merge].parents == ("ft-lr0.1", "ft-lr0.2", "lwf")


def test_a_recipe_that_is_not_swept_has_no_merge_over_variants(with_entries):
    # given
    recipes = {"paper": {"ft": {"lr": [0.1, 0.2]}}, "adamw": {"ft": {"lr": 0.3}}}
    defaults = {**to_params(grid().family.defaults), "targets": ["my_set"]}
    catalog = with_entries(
        families={"mine": {"recipes": recipes, "defaults": defaults}},
        datasets={"my_set": {"family": "mine"}},
    )
    choices = {"family": "mine", "models": ["efficientnet_lite0"], "methods": ["soup_sweep"]}
    # when
    chosen = grid(catalog, **choices, recipes=["adamw", "paper"])
    # then
    assert [name for name in chosen.methods if "soup" in name] == ["soup_sweep-paper"]
    message = "'soup_sweep' cannot be run: it merges a sweep with one recipe"
    with pytest.raises(UserError, match=message):
        grid(catalog, **choices, recipes=["adamw"])


def test_a_swept_parent_gives_a_merge_over_seeds_for_each_variant():
    chosen = grid(**TWO, methods=["soup_seeds"], method_settings=SWEEP)
    assert chosen.parents_of("soup_seeds-lr0.1") == ["ft-lr0.1, seed 4", "ft-lr0.1, seed 2"]
    assert chosen.parents_of("soup_seeds-lr0.2") == ["ft-lr0.2, seed 4", "ft-lr0.2, seed 2"]


# What cannot be merged


NO_PARENTS = [
    ("soup_seeds", {"seeds": [3]}, "over seeds"),
    ("soup_sweep", {}, "sweep a setting of ft"),
    ("soup_targets", {"targets": ["noto"]}, "over targets"),
    ("soup_targets", {"datasets": ["noto", "openmoji"]}, "no dataset is left"),
    ("greedy_soup_sweep", {"method_settings": SWEEP}, "held-out images"),
]


@pytest.mark.parametrize(("method", "choices", "why"), NO_PARENTS)
def test_a_merge_without_parents_or_datasets_is_refused_by_name_and_left_out_with_a_notice(
    method, choices, why
):
    choices = {**TWO, **choices}
    # if it is chosen by name
    message = f"^config, methods: '{method}' cannot be run: .*{why}"
    with pytest.raises(UserError, match=message):
        grid(**choices, methods=["ft", method])
    # if it is one of all
    chosen = grid(**choices, methods="all")
    assert [name for name in chosen.methods if name.startswith(method)] == []
    start_of_notice = f"method '{method}' is left out"
    (notice,) = [notice for notice in chosen.notices if notice.startswith(start_of_notice)]
    assert why in notice


def test_merges_over_targets_are_scored_where_neither_targets_nor_their_sources_are(with_entries):
    # given
    catalog = with_entries(datasets={"mine": {"source_group": "of_openmoji"}})
    source_group_of_dataset = {
        name: entry.source_group
        for name, entry in catalog.datasets.items()
        if entry.family == "emoji"
    }
    # when
    chosen = grid(catalog, **TWO, methods=["soup_targets"])
    chosen_with_fluent = grid(catalog, methods=["soup_targets"], targets=["noto", "fluent_flat"])
    # then none of the targets is among them
    other_datasets = [name for name in chosen.datasets if name not in ("noto", "openmoji")]
    assert other_datasets
    assert chosen.not_trained_on == other_datasets
    # and none that was drawn by those who drew a target
    datasets_of_other_sources = {
        name
        for name, source_group in source_group_of_dataset.items()
        if source_group not in ("noto", "fluent")
    }
    expected_datasets = datasets_of_other_sources - {"noto"}
    assert set(chosen_with_fluent.not_trained_on) == expected_datasets
    assert "mine" in expected_datasets
    assert "openmoji" in expected_datasets


def test_merges_over_targets_are_scored_on_what_counts_in_ri(with_entries):
    """Neither in distribution, nor on variants.

    Left out are variants of datasets that are there, and variants of targets.
    """
    # given
    catalog = with_entries(
        datasets={
            "mine": {"variant_of": "noto"},
            "other": {"variant_of": "openmoji"},
            "own": {"role": "in_distribution"},
        }
    )
    # when
    chosen = grid(catalog, methods=["soup_targets"], targets=["noto", "fluent_flat"])
    # then
    assert {"mine", "other", "own"} <= set(chosen.datasets)
    assert "openmoji" in chosen.not_trained_on
    for left_out in ("mine", "other", "own", "noto"):
        assert left_out not in chosen.not_trained_on


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"algorithm": "ft", "form": "finetune", "over": "seeds"},
            "methods.yaml, mine: over is only for merges",
        ),
        (
            {"over": "targets", "algorithm": "greedy_soup", "form": "select"},
            "mine: over: targets is not for a select",
        ),
        ({"over": "runs"}, "methods.yaml: .*'mine.over' is 'runs'"),
    ],
)
def test_a_bad_entry_is_refused_in_one_sentence(with_entries, changes, message):
    entry = {**SOUP, **changes}
    if entry["algorithm"] != "ft":
        entry["parents"] = ["ft"]
    catalog = with_entries(methods={"mine": entry})
    with pytest.raises(UserError, match=message):
        _ = catalog.methods


def test_a_sweep_of_a_parent_of_a_merge_over_targets_is_nothing_to_select():
    chosen = grid(**TWO, methods=["soup_targets"], method_settings=SWEEP, select="oracle")
    assert chosen.selection.variants == {"ft": ["ft-lr0.1", "ft-lr0.2"]}


# Coefficients


KEYS = ["ft, seed 0", "ft, seed 1", "ft, seed 2"]


def test_the_pretrained_model_is_an_ingredient_of_a_soup_or_not():
    third = 1 / 3
    assert soup.coefficients(KEYS, pretrained=False) == {
        "ft, seed 0": third,
        "ft, seed 1": third,
        "ft, seed 2": third,
    }
    assert soup.coefficients(KEYS, pretrained=True) == {
        "pretrained": 0.25,
        "ft, seed 0": 0.25,
        "ft, seed 1": 0.25,
        "ft, seed 2": 0.25,
    }


def users_merge(folder, source, **settings):
    """Write the file of a merge over KEYS as its job does, and give what is in it.

    Args:
        source: of the user's algorithm.
        settings: of the merge.
    """
    algorithm = folder / "mine.py"
    algorithm.write_text(source)
    merge = MergeSettings(
        form="coefficients", algorithm=str(algorithm), settings={"mine": settings}
    )
    (state,) = merged_states(RUN, KEYS, merge)
    return state.mixture


# Algorithms of users: their source.
LISTED = (
    "def coefficients(parents, *, coefficients: list):\n"
    "    return {key: coefficients[i] for i, key in enumerate(parents)}\n"
)
OF_ANOTHER_METHOD = "def coefficients(parents, *, coefficients):\n    return {'ft': 1.0}\n"


def test_coefficients_of_a_users_merge_are_by_key(tmp_path):
    coefficients = users_merge(tmp_path, LISTED, coefficients=[0.5, 0.25, 0.25])
    assert coefficients == {"ft, seed 0": 0.5, "ft, seed 1": 0.25, "ft, seed 2": 0.25}


@pytest.mark.parametrize(
    ("source", "coefficients", "message"),
    [
        (LISTED, [0.5, 0.5], r"mine\.py: list index out of range"),
        (OF_ANOTHER_METHOD, [], r"mine\.py weighs 'ft', .* ft, seed 0, "),
    ],
    ids=["too short", "unknown"],
)
def test_what_is_wrong_with_a_users_merge_is_one_sentence(tmp_path, source, coefficients, message):
    with pytest.raises(UserError, match=f"^{message}"):
        users_merge(tmp_path, source, coefficients=coefficients)


# What is made of the runs


@pytest.mark.parametrize(("lowest_fit", "underfitted"), [(0.94, "yes"), (0.96, "no")])
def test_a_merge_is_underfitted_if_one_of_all_its_parents_is(lowest_fit, underfitted):
    """A parent whose method need not fit its training images has no say."""
    # given
    merge = Run("m", "a", "soup", "all", 0)
    accuracy = pd.DataFrame([{**vars(merge), "dataset": "a", "accuracy": 80.0}])
    fit_of_parents = {
        "ft, seed 0": 1.0,
        "ft, seed 1": 1.0,
        "ft, seed 2": lowest_fit,
        "lwf, seed 2": 0.1,
    }
    rule = FitRule(can_fit=["ft"], threshold=0.95, whole_targets=True)
    # when
    table = fit_table({merge: fit_of_parents}, accuracy, rule)
    # then
    (row,) = table.to_dict("records")
    assert row["underfitted"] == underfitted
    assert row["fit"] == 80.0


def test_the_cost_of_a_merge_over_seeds_is_that_of_all_its_trainings():
    # given three trainings on each of two targets, and a merge on each, whose run is of one seed
    seconds_of_jobs = [("evaluate", "none", "pretrained", "0", 5.0)]
    for target in ("a", "b"):
        for seed in ("0", "1", "2"):
            seconds_of_jobs.append(("finetune", target, "ft", seed, 100.0))
            seconds_of_jobs.append(("evaluate", target, "ft", seed, 2.0))
        seconds_of_jobs.append(("merge", target, "soup", "0", 3.0))
        seconds_of_jobs.append(("evaluate", target, "soup", "0", 3.0))
    columns = ["stage", "target", "method", "seed", "seconds"]
    jobs = pd.DataFrame(seconds_of_jobs, columns=columns)
    jobs = jobs.assign(model="m", size="all", device="", images=0, megabytes=0.0, memory=0.0)
    jobs["record"] = [f"{i}.json" for i in range(len(jobs))]
    # when
    table = cost_table(jobs, {"ft": [], "soup": ["ft"]})
    # then fine-tuning costs the mean over seeds
    cost_of_method = table.set_index("method").to_dict("index")
    ft = cost_of_method["ft"]
    assert ft["finetune"] == 2 * 100
    assert ft["merge"] == 0
    assert ft["evaluate"] == 2 * 2 + 5
    assert ft["jobs"] == 2 * 2 + 1
    # and the soup all trainings
    soup_cost = cost_of_method["soup"]
    assert soup_cost["finetune"] == 2 * 3 * 100
    assert soup_cost["merge"] == 2 * 3
    assert soup_cost["evaluate"] == 2 * 3 + 5
    assert soup_cost["jobs"] == 2 * 3 + 2 + 2 + 1


# of evaluation rows
ROW_COLUMNS = list(dict.fromkeys([*RUN_COLUMNS, *COLUMNS]))
# Objects of datasets. On dataset a the merge was trained; there is one image of each object and a
# second one of the first.
OBJECTS = {"a": 9, "b": 6, "c": 8}
EXPECTED_ACCURACY = {"pretrained": 0.5, "soup_targets": 0.7}
REPLICATES = 200
SEED_OF_REPLICATES = 3


@dataclass(frozen=True)
class TableOverTargets:
    """The table of two seeds of a merge over targets, and the rows that it is of."""

    table: pd.DataFrame
    rows: pd.DataFrame


def write_index(folder, dataset):
    """Write a dataset's index; gives its path."""
    objects = range(OBJECTS[dataset])
    index = pd.DataFrame({"object_id": [*(f"o{i}" for i in objects), "o0"], "label": [*objects, 0]})
    index["photo_sha256"] = [f"{dataset} {row}" for row in index.index]
    path = folder / dataset / "none/index.parquet"
    path.parent.mkdir(parents=True)
    index.to_parquet(path)
    return path


def random_rows(run, datasets, rng):
    """Rows of a run's evaluation on datasets: each image is right, rank 0, or wrong, 1."""
    rows_of_datasets = []
    for dataset in datasets:
        images = OBJECTS[dataset] + 1
        is_wrong = rng.random(images) > EXPECTED_ACCURACY[run.method]
        rows = pd.DataFrame({"row": np.arange(images), "rank": is_wrong.astype(int)})
        rows = rows.assign(**vars(run), alpha=np.nan, dataset=dataset)
        rows_of_datasets.append(rows[ROW_COLUMNS])
    return pd.concat(rows_of_datasets)


@pytest.fixture
def over_targets(tmp_path):
    """The merge of seed 1 has a parent whose run is underfitted.

    The rate of the parents was not chosen for the network.
    """
    fit_of_runs = {
        Run("m", "none", "pretrained", "all", 0): {},
        Run("m", "none", "soup_targets", "all", 0): {"ft, target a": 1.0, "ft, target z": 1.0},
        Run("m", "none", "soup_targets", "all", 1): {"ft, target a": 1.0, "ft, target z": 0.9},
    }
    rng = np.random.default_rng(1)
    row_files = []
    manifests = []
    for run, fit_of_parents in fit_of_runs.items():
        datasets = ["a", "b", "c"] if run.method == "pretrained" else ["b", "c"]
        folder = tmp_path / str(run)
        folder.mkdir(parents=True)
        row_file = folder / "g.parquet"
        random_rows(run, datasets, rng).to_parquet(row_file)
        row_files.append(row_file)
        manifest = folder / "g.manifest.json"
        networks = [{"method": run.method}]
        facts = {
            "device": "cpu",
            "trained_on": {},
            "fit": fit_of_parents,
            "networks": networks,
        }
        manifest.write_text(json.dumps(facts))
        manifests.append(manifest)
    rule = FitRule(
        can_fit=["ft"],
        threshold=0.95,
        whole_targets=True,
        other_rates={"m": ["soup_targets"]},
    )
    indexes = [write_index(tmp_path, dataset) for dataset in OBJECTS]
    write(
        over_targets_table,
        files=RowFiles(rows=row_files, indexes=indexes),
        manifests=manifests,
        datasets=["b", "c"],
        fit=rule,
        replicates=REPLICATES,
        confidence=0.9,
        seed=SEED_OF_REPLICATES,
        conditions="protocol paper",
        table=tmp_path / "table.csv",
    )
    rows = pd.concat([pd.read_parquet(row_file) for row_file in row_files])
    return TableOverTargets(pd.read_csv(tmp_path / "table.csv"), rows)


def mean_accuracy_by_hand(rows, times_drawn):
    """Mean accuracy over b and c in percent, if each object counts as often as it was drawn.

    Args:
        rows: of one run.
        times_drawn: of each object of b and c, whose places are those of their names.
    """
    accuracies = []
    for dataset in ("b", "c"):
        right_images = 0
        images = 0
        for image in rows[rows["dataset"] == dataset].itertuples():
            is_last_image = image.row == OBJECTS[dataset]
            place_of_object = 0 if is_last_image else image.row
            times = int(times_drawn[place_of_object])
            images += times
            if image.rank == 0:
                right_images += times
        accuracies.append(100 * right_images / images if images else np.nan)
    return sum(accuracies) / 2


def test_merges_over_targets_are_scored_on_what_was_not_trained_on_over_the_same_draws(
    over_targets,
):
    # given
    objects_of_b_and_c = 8  # o0 to o7
    weights = object_weights(objects_of_b_and_c, REPLICATES, SEED_OF_REPLICATES)
    rows = over_targets.rows
    rows_before = rows[rows["method"] == "pretrained"]
    before = np.array([mean_accuracy_by_hand(rows_before, times) for times in weights])
    # then
    table = over_targets.table
    assert table["method"].tolist() == ["soup_targets", "soup_targets"]
    assert table["seed"].tolist() == [0, 1]
    assert table["datasets"].tolist() == [2, 2]
    images_of_b_and_c = 7 + 9
    assert table["images"].tolist() == [images_of_b_and_c, images_of_b_and_c]
    for line in table.itertuples():
        rows_after = rows[(rows["method"] == "soup_targets") & (rows["seed"] == line.seed)]
        after = np.array([mean_accuracy_by_hand(rows_after, times) for times in weights])
        change = after - before
        # The first of the weights counts each object once; the others are replicates.
        accuracy_before, *_ = before
        accuracy_after, *_ = after
        difference, *differences_of_replicates = change
        low, high = np.nanpercentile(differences_of_replicates, [5, 95])
        assert line.before == pytest.approx(accuracy_before, abs=1e-5)
        assert line.after == pytest.approx(accuracy_after, abs=1e-5)
        assert line.difference == pytest.approx(difference, abs=1e-5)
        assert line.ci_low == pytest.approx(low, abs=1e-5)
        assert line.ci_high == pytest.approx(high, abs=1e-5)


def test_a_merge_over_targets_is_marked_if_a_parent_is_underfitted_or_has_another_rate(
    over_targets,
):
    marks_of_seeds = over_targets.table.set_index("seed")
    assert marks_of_seeds["underfitted"].to_dict() == {0: 0, 1: 1}
    assert marks_of_seeds["other_rate"].to_dict() == {0: 1, 1: 1}
