"""RI, mRI and their intervals against the definitions written out, and against a slow bootstrap."""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from rib.analyses.data_and_models.tables import identical_table
from rib.base.devices import join_kinds, kind_of_device, name_mixture
from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.catalog.label_space import LabelSpace
from rib.data.identity import PHOTO
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, DatasetView, load_whole
from rib.schema.layout import Layout
from rib.schema.run import MEAN, RUN_COLUMNS, Run
from rib.statistics.bootstrap import estimate, object_weights
from rib.statistics.counts import (
    COLUMNS,
    RowFiles,
    count,
    read_counts,
    read_objects,
    read_rows_of,
    write_counts,
)
from rib.statistics.objects import ALL_INDICES
from rib.statistics.ri import ood_accuracies, ood_parts
from rib.statistics.sample_rows import read_rows
from rib.statistics.scored_state import STATE_COLUMNS
from rib.statistics.statistics_settings import FitRule, GridTableSettings, RIStatistics
from rib.statistics.tables import (
    devices_of_runs,
    grid_tables,
    json_by_method,
    read_fits,
    ri_table,
    roles_of,
)
from rib.statistics.writing import write_tables
from tiny.tables.rows import by_runs, write_rows
from tiny.tables.states import columns_of_run, state_of

DATASETS = ["a", "b", "c"]
TARGETS = ["a", "b"]
GROUP = ["model", "method", "size"]
MRI = ["mri", "ci_low", "ci_high"]
LEAK_FREE = ["leak_free", "leak_free_low", "leak_free_high"]
ALL_IMAGES = DatasetView(geometry=None, budget="all", images_per_class=None)
# of evaluation rows
ROW_COLUMNS = list(dict.fromkeys([*RUN_COLUMNS, *COLUMNS]))
# By dataset, the first of the ten outputs that its five classes have.
FIRST_OUTPUTS = {"a": 0, "b": 3, "c": 6, "val": 9, "outside": 4}


def scored(rows):
    """Evaluation rows: in place of labels and predictions, rows of the index and ranks."""
    image_groups = rows.groupby([*STATE_COLUMNS, "dataset"], dropna=False, observed=True)
    rank = (rows["label"] != rows["prediction"]).astype("int16")
    return rows.assign(row=image_groups.cumcount(), rank=rank)[ROW_COLUMNS]


def indexes_of(rows):
    """The index of each dataset: the images that a pretrained model was scored on."""
    of_first_model = rows["model"] == rows["model"].iloc[0]
    images = rows[(rows["method"] == "pretrained") & of_first_model]
    by_dataset = images.groupby("dataset", observed=True)
    return {dataset: index.reset_index(drop=True) for dataset, index in by_dataset}


def counted(*tables):
    """Counts of the rows in these tables."""
    rows = pd.concat(tables, ignore_index=True)
    return count(by_runs(scored(rows)), indexes_of(rows))


def has_equal_counts(counts, expected, dataset):
    """Whether two counts have the same objects of a dataset and right answers on them."""
    same_objects = counts.object_indices[dataset] == expected.object_indices[dataset]
    same_answers = counts.correct[dataset] == expected.correct[dataset]
    return same_objects.all() and same_answers.all()


@cache
def space_of(dataset):
    """Of five classes with two outputs each, of which a dataset shares some with the next."""
    first_output = FIRST_OUTPUTS[dataset]
    keys = tuple("vwxyz")
    outputs = tuple((first_output + i, 20 + first_output + i) for i in range(5))
    return LabelSpace(keys, outputs, keys)


def write_indexes(folder, rows):
    """Write indexes and classes as prepare jobs do.

    `outside` is a target that is not evaluated on.
    """
    outside = pd.DataFrame({"object_id": [f"o{i}" for i in range(6)], "label": [0, 0, 1, 1, 1, 2]})
    indexes = {**indexes_of(rows), "outside": outside}
    for dataset, images in indexes.items():
        prepared = folder / f"prepare/{dataset}/32px"
        prepared.mkdir(parents=True)
        ids = [f"i{row}" for row in range(len(images))]
        index = images[["object_id", "label"]].assign(
            row=range(len(images)),
            image_id=ids,
            source_id=ids,
            photo_sha256=[f"{dataset} {image_id}" for image_id in ids],
        )
        index.to_parquet(prepared / "index.parquet")
        write_json(prepared / "classes.json", space_of(dataset).to_json())


def index_paths(folder):
    """The indexes that `write_indexes` wrote in a folder."""
    return sorted(folder.glob("prepare/*/*/index.parquet"))


def datasets_in(folder):
    """The datasets whose indexes `write_indexes` wrote in a folder."""
    prepared_folders = [path.parent for path in index_paths(folder)]
    return [DatasetFiles(path.parent.name, path, pixels=False) for path in prepared_folders]


def settings_of(
    *,
    in_distribution=(),
    threshold=None,
    sharing_targets=(),
    leaking_groups=None,
    filtered=(),
    **statistics,
):
    """Settings of `grid_tables`, with these fields of `RIStatistics` in place of the usual ones."""
    usual_statistics = {
        "ood_datasets": DATASETS,
        "source_groups": None,
        "replicates": 30,
        "confidence": 0.9,
        "seed": 5,
    }
    return GridTableSettings(
        ri=RIStatistics(**{**usual_statistics, **statistics}),
        fit=FitRule(can_fit=["ft"], threshold=threshold, whole_targets=True),
        in_distribution=list(in_distribution),
        view=ALL_IMAGES,
        excludes_proxy=[],
        split=[],
        sharing_targets=sharing_targets,
        leaking_groups=leaking_groups,
        filtered=list(filtered),
        conditions="protocol paper",
        code="",
    )


@pytest.fixture
def rows():
    """Rows of one model: pretrained, and methods x targets x seeds.

    Objects overlap between datasets.
    """
    runs = [("pretrained", "none", 0)]
    for method in ("ft", "lwf"):
        for target in TARGETS:
            runs += [(method, target, seed) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    tables = []
    for method, target, seed in runs:
        for dataset, n in zip(DATASETS, (9, 7, 12), strict=True):
            labels = np.arange(n)
            is_wrong = rng.random(n) < 0.4
            columns = {
                **columns_of_run(method, target, seed),
                "dataset": dataset,
                "object_id": [f"o{i}" for i in range(n)],
                "label": labels,
                "prediction": labels + is_wrong,
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def accuracy(rows, method, target, seed, dataset):
    """Accuracy of a run on a dataset, in percent."""
    rows_on_dataset = rows.query(
        "method == @method and target == @target and seed == @seed and dataset == @dataset"
    )
    return 100 * (rows_on_dataset["label"] == rows_on_dataset["prediction"]).mean()


def test_the_pretrained_model_compared_with_itself_has_ri_zero_without_spread(rows):
    pretrained = rows[rows["method"] == "pretrained"]
    fine_tuned = pretrained.assign(method="ft", target="a")
    counts = counted(pretrained, fine_tuned)
    ood = ood_accuracies(counts, object_weights(counts.objects, 100, 0))
    assert ri_table(ood, 0.95)[["ri", "ci_low", "ci_high"]].to_numpy().tolist() == [[0, 0, 0]]


ON_CPU = {"device": "cpu", "gpu": None, "capability": None, "precision": "fp32"}
ON_A100 = {"device": "cuda", "gpu": "A100", "capability": "8.0", "precision": "bf16"}
ON_H100 = {"device": "cuda", "gpu": "H100", "capability": "9.0", "precision": "bf16"}


def test_devices_of_a_run_are_of_its_trainings_and_evaluations(tmp_path):
    # given: ft was trained on two cards, one after the other; the pretrained model's evaluation was
    # on a third, of the same kind as the second
    h100, a100, cpu = map(kind_of_device, (ON_H100, ON_A100, ON_CPU))
    evaluations = {
        "none": ("pretrained", {**ON_H100, "gpu": "H100 NVL", "trained_on": {}}),
        "a": ("ft", {**ON_H100, "trained_on": {"ft.json": [a100, h100]}}),
        "b": ("ft", {**ON_CPU, "trained_on": {"ft.json": [cpu]}}),
    }
    paths = []
    for target, (method, facts) in evaluations.items():
        path = tmp_path / f"m/{target}/{method}/all/0/d.manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        networks = [{"method": method}]
        write_json(path, {**facts, "fit": {}, "networks": networks})
        paths.append(path)
    # when
    devices = devices_of_runs(paths)
    # then
    assert devices == {
        Run("m", "none", "pretrained", "all", 0): h100,
        Run("m", "a", "ft", "all", 0): f"{a100} + {h100}",
        Run("m", "b", "ft", "all", 0): cpu,
    }


def test_tables_of_runs_on_several_kinds_of_devices_are_made_and_name_them(tmp_path):
    # given
    rows = grid_rows(3)
    write_indexes(tmp_path, rows)
    for run_file in write_rows(tmp_path, scored(rows), "one"):
        method = run_file.parts[-4]
        facts = ON_H100 if method == "ft" else ON_A100
        networks = [{"method": method}]
        manifest = {**facts, "trained_on": {}, "fit": {}, "networks": networks}
        write_json(run_file.with_name("one.manifest.json"), manifest)
    # when
    tables = write_grid_tables(tmp_path, "t", replicates=5)
    # then
    for name in ("accuracy", "ri", "fit"):
        is_ft = tables[name]["method"] == "ft"
        assert set(tables[name].loc[is_ft, "device"]) == {kind_of_device(ON_H100)}
        assert set(tables[name].loc[~is_ft, "device"]) == {kind_of_device(ON_A100)}


@pytest.mark.parametrize("key", ["device", "capability", "precision"])
def test_a_kind_of_device_is_its_type_capability_and_precision_and_no_name(key):
    assert kind_of_device({**ON_A100, "gpu": "A100 PCIe"}) == kind_of_device(ON_A100)
    assert kind_of_device({**ON_A100, key: "other"}) != kind_of_device(ON_A100)


def test_a_note_names_kinds_of_devices_only_where_they_are_several():
    h100, a100 = map(kind_of_device, (ON_H100, ON_A100))
    assert name_mixture([]) is None
    assert name_mixture([a100, a100]) is None
    note = name_mixture([a100, h100, a100])
    assert f"{a100} (2 runs)" in note and f"{h100} (1 run)" in note
    # and where each run was trained on one kind and evaluated on another
    assert name_mixture([join_kinds([a100, h100])] * 2) is not None


def write_together(folder, rows):
    """Write a file with the rows of all methods for each target and seed; gives the paths."""
    paths = []
    for (target, seed), rows_of_file in scored(rows).groupby(["target", "seed"]):
        path = folder / f"m/{target}/both/all/{seed}/rows.parquet"
        path.parent.mkdir(parents=True)
        rows_of_file.to_parquet(path)
        paths.append(path)
    return paths


def accuracies_of_files(row_files, rows):
    """Accuracies of the states that files of rows have, by state."""
    counts = count(read_rows_of(row_files), indexes_of(rows))
    weights = object_weights(counts.objects, replicates=20, seed=0)
    return ood_accuracies(counts, weights)


def test_rows_of_methods_in_one_file_count_as_in_files_of_their_own(tmp_path, rows):
    # given
    alone = accuracies_of_files(RowFiles(write_rows(tmp_path / "alone", scored(rows)), []), rows)
    paths = write_together(tmp_path / "together", rows)
    # when
    together = accuracies_of_files(RowFiles(paths, []), rows)
    # then
    assert set(together) == set(alone)
    for state, accuracies in alone.items():
        np.testing.assert_array_equal(together[state].after, accuracies.after)
    # and of the methods that are asked for alone
    of_some = accuracies_of_files(RowFiles(paths, [], methods=["pretrained", "lwf"]), rows)
    assert {state.run.method for state in of_some} == {"lwf"}
    for state, accuracies in of_some.items():
        np.testing.assert_array_equal(accuracies.after, alone[state].after)


def test_files_of_a_run_are_those_that_have_its_rows(tmp_path, rows):
    paths = write_together(tmp_path, rows)
    files_of_run = RowFiles(paths, []).of_runs()
    assert set(files_of_run) == {
        Layout.run_of(path) for path in write_rows(tmp_path / "alone", rows)
    }
    for method in ("ft", "lwf"):
        run = Run("m", "a", method, "all", 1)
        assert files_of_run[run] == [tmp_path / "m/a/both/all/1/rows.parquet"]
        table = read_rows(method, files_of_run[run], ["row", "rank"])["a"]
        rows_of_run = rows.query("method == @method and target == 'a' and seed == 1")
        is_right = rows_of_run["label"] == rows_of_run["prediction"]
        assert ((table["rank"] == 0) == is_right[rows_of_run["dataset"] == "a"].to_numpy()).all()
    of_lwf = RowFiles(paths, [], methods=["lwf"]).of_runs()
    assert {run.method for run in of_lwf} == {"lwf"}


def test_the_fit_of_methods_in_one_manifest_is_that_of_each(tmp_path):
    # given
    manifest = tmp_path / "m/a/wise-alpha/all/0/rows.manifest.json"
    manifest.parent.mkdir(parents=True)
    networks = [{"method": "wise-alpha0.25"}, {"method": "wise-alpha0.5"}]
    write_json(
        manifest, {"device": "cpu", "trained_on": {}, "fit": {"ft": 0.9}, "networks": networks}
    )
    # then
    runs = [Run("m", "a", network["method"], "all", 0) for network in networks]
    assert read_fits([manifest]) == {run: {"ft": 0.9} for run in runs}
    assert read_fits([manifest], ["wise-alpha0.5"]) == {runs[1]: {"ft": 0.9}}


def test_a_target_that_leaves_no_image_is_refused(rows):
    is_in_a = rows["object_id"].isin([f"o{i}" for i in range(5)])
    counts = counted(rows[(rows["dataset"] != "c") | is_in_a])
    weights = object_weights(counts.objects, 10, seed=1)
    with pytest.raises(UserError, match=r"\ba\b"):
        ood_accuracies(counts, weights, ood_datasets=["a", "c"], source_groups={"a": "g", "c": "g"})


# All tables of a grid, against pandas


# By dataset, in the order of evaluation; `val` is in distribution.
IMAGES = {"b": 11, "a": 8, "c": 6, "val": 9}
OBJECTS = {"b": 7, "a": 8, "c": 3, "val": 9}  # of which the first have several images
# Images that RI counts, by target.
OOD_IMAGES = {"a": 11 + 6, "b": 8 + 6, "outside": 11 + 8 + 6}
NOT_ON_CURVE = -1.0


class StateKey(NamedTuple):
    """A scored state as the references below have it: alpha is no NaN, since NaN is no key."""

    model: str
    method: str
    target: str
    size: str
    seed: int
    alpha: float  # NOT_ON_CURVE unless the run is a curve


def pretrained_key(model):
    """The state of a pretrained model."""
    return StateKey(model, "pretrained", "none", "all", 0, NOT_ON_CURVE)


def key_of(state):
    """The key of a scored state of the library."""
    alpha = NOT_ON_CURVE if state.alpha is None else state.alpha
    run = state.run
    return StateKey(run.model, run.method, run.target, run.size, run.seed, alpha)


def keys_of(rows):
    """The keys of the states that have rows, in their order."""
    states = rows[STATE_COLUMNS].fillna({"alpha": NOT_ON_CURVE}).drop_duplicates()
    return [StateKey(*names) for names in states.itertuples(index=False, name=None)]


def states_of_grid(model):
    """The states of a model; `outside` is a target that is not evaluated on."""
    states = [pretrained_key(model)]
    for target in ("b", "a"):
        for size in ("all", "5"):
            for seed in (0, 1):
                states.append(StateKey(model, "ft", target, size, seed, NOT_ON_CURVE))
    for target in ("a", "outside"):
        states.append(StateKey(model, "lwf", target, "all", 0, NOT_ON_CURVE))
    for target in ("a", "outside"):
        for seed in (0, 1):
            for alpha in (0.0, 0.5):
                states.append(StateKey(model, "curve", target, "all", seed, alpha))
    return states


def grid_rows(seed=0):
    """Rows of two models, of which about six of ten answers are right."""
    rng = np.random.default_rng(seed)
    labels_of = {dataset: rng.integers(0, 5, n) for dataset, n in IMAGES.items()}
    tables = []
    for model in ("n", "m"):
        for state in states_of_grid(model):
            for dataset, n in IMAGES.items():
                labels = labels_of[dataset]
                columns = {
                    **state._asdict(),
                    "dataset": dataset,
                    "object_id": [f"o{i % OBJECTS[dataset]}" for i in range(n)],
                    "label": labels,
                    "prediction": np.where(rng.random(n) < 0.6, labels, labels + 1),
                }
                tables.append(pd.DataFrame(columns))
    rows = pd.concat(tables, ignore_index=True)
    return rows.assign(alpha=rows["alpha"].where(rows["alpha"] != NOT_ON_CURVE))


def fit_in_manifest(method, target):
    """The fit that the manifest of a run has, by trained method."""
    if method == "pretrained":
        return {}
    if method == "curve":
        return {"ft": 0.8}
    if target == "a":
        return {method: 0.8}
    return {method: 0.96}


@dataclass(frozen=True)
class EvaluatedGrid:
    """A folder with the rows of a grid in two files for each run, and its manifests."""

    folder: Path
    rows: pd.DataFrame  # the rows of both files, with labels and predictions


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Rows of `grid_rows`, evaluated."""
    folder = tmp_path_factory.mktemp("grid")
    rows = grid_rows()
    for file, datasets in (("one", ["b", "val"]), ("two", ["a", "c"])):
        rows_of_file = scored(rows[rows["dataset"].isin(datasets)])
        write_rows(folder, rows_of_file.assign(confidence=0.5), file)
    write_indexes(folder, rows)
    for model in ("n", "m"):
        for state in states_of_grid(model):
            run_folder = folder / model / state.target / state.method / state.size / str(state.seed)
            run_folder.mkdir(parents=True, exist_ok=True)
            manifest = {
                "device": "cpu",
                "trained_on": {},
                "fit": fit_in_manifest(state.method, state.target),
                "networks": [{"method": state.method}],
            }
            (run_folder / "set.manifest.json").write_text(json.dumps(manifest))
    return EvaluatedGrid(folder, rows)


@pytest.fixture
def tables(grid):
    """The tables that `grid_tables` makes of the grid, by name; their files begin with plain."""
    return write_grid_tables(grid.folder, "plain")


def write_grid_tables(folder, prefix, **choices):
    """The tables that `grid_tables` makes of the grid in a folder, by name, as they are written.

    Args:
        prefix: what names of the written files begin with.
        choices: arguments of `settings_of`.
    """
    row_files = [*sorted(folder.rglob("one.parquet")), *sorted(folder.rglob("two.parquet"))]
    made_tables = grid_tables(
        files=RowFiles(row_files, index_paths(folder)),
        manifests=sorted(folder.rglob("*.manifest.json")),
        datasets=datasets_in(folder),
        settings=settings_of(**choices),
        counts_file=folder / f"{prefix}.npz",
    )
    outputs = {name: folder / f"{prefix}_{name}.csv" for name in made_tables}
    write_tables(made_tables, outputs, conditions="protocol paper")
    write_json(folder / f"{prefix}.json", json_by_method(made_tables["mri"]))
    return {name: pd.read_csv(path, dtype={"size": str}) for name, path in outputs.items()}


def test_mri_without_filtered_datasets_is_that_of_the_others(grid):
    filtered, *others = DATASETS
    without = write_grid_tables(grid.folder, "others", ood_datasets=others)["mri"]
    table = write_grid_tables(grid.folder, "filtered", filtered=[filtered])["mri"]
    columns = {"mri": "", "ci_low": "_low", "ci_high": "_high"}
    assert len(table) == len(without)
    for column, end in columns.items():
        np.testing.assert_allclose(table[f"without_filtered{end}"], without[column])
    assert not np.allclose(table["without_filtered"], table["mri"])


def test_the_table_of_datasets_in_distribution_has_means_over_targets_and_seeds(grid):
    table = write_grid_tables(grid.folder, "inside", in_distribution=["val"])["in_distribution"]
    rows = grid.rows
    percent = rows.assign(percent=100.0 * (rows["label"] == rows["prediction"]))
    counted_rows = percent[(rows["dataset"] == "val") & rows["alpha"].isna()]
    accuracies = counted_rows.groupby(["model", "method", "size", "target", "seed"])[
        "percent"
    ].mean()
    assert len(table)
    for line in table.itertuples():
        after = accuracies[line.model, line.method, line.size].mean()
        before = accuracies[line.model, "pretrained", "all"].mean()
        assert line.before == pytest.approx(before, abs=1e-5)
        assert line.after == pytest.approx(after, abs=1e-5)
        assert line.change == pytest.approx(after - before, abs=1e-5)
        assert line.ci_low <= line.change <= line.ci_high


def accuracies_of(rows, weights):
    """Accuracies in percent by the columns of a state and the dataset.

    Args:
        weights: by object; each image is weighted as its object is.
    """
    weighted = rows.assign(
        alpha=rows["alpha"].fillna(NOT_ON_CURVE),
        weight=rows["object_id"].map(weights).astype(float),
    )
    weighted["correct"] = weighted["weight"] * (weighted["label"] == weighted["prediction"])
    sums = weighted.groupby([*STATE_COLUMNS, "dataset"])[["weight", "correct"]].sum()
    return (100 * sums["correct"] / sums["weight"].where(sums["weight"] > 0)).to_dict()


def expected_ood(rows, weights, leaks=None):
    """Mean accuracies on the other datasets of every fine-tuned state, by the definitions.

    Args:
        weights: by object.
        leaks: which rows are left out for a target, from the rows and the target.

    Returns:
        Columns before, after and change, by the columns of a state.
    """
    fine_tuned = [state for state in keys_of(rows) if state.method != "pretrained"]
    targets = {state.target for state in fine_tuned}
    if leaks is None:
        accuracies_for = dict.fromkeys(targets, accuracies_of(rows, weights))
    else:
        accuracies_for = {
            target: accuracies_of(rows[~leaks(rows, target)], weights) for target in targets
        }
    before = []
    after = []
    for state in fine_tuned:
        accuracies = accuracies_for[state.target]
        pretrained = pretrained_key(state.model)
        others = [
            dataset
            for dataset in DATASETS
            if dataset != state.target and (*state, dataset) in accuracies
        ]
        before.append(np.mean([accuracies[*pretrained, dataset] for dataset in others]))
        after.append(np.mean([accuracies[*state, dataset] for dataset in others]))
    index = pd.MultiIndex.from_tuples([tuple(state) for state in fine_tuned], names=STATE_COLUMNS)
    ood = pd.DataFrame({"before": before, "after": after}, index=index)
    return ood.assign(change=ood["after"] - ood["before"])


@dataclass(frozen=True)
class BootstrappedOod:
    """`expected_ood` of the observed objects, and of each bootstrap draw of the grid's tables."""

    observed: pd.DataFrame
    drawn: list[pd.DataFrame]

    def with_intervals(self, column):
        """A column of the observed table, and the ends of its 90 percent intervals."""
        replicates = np.array([table[column] for table in self.drawn])
        low, high = np.nanpercentile(replicates, [5, 95], axis=0)
        return pd.DataFrame({"estimate": self.observed[column], "low": low, "high": high})

    def means_over_runs(self):
        """The same of each model, method and size: means over targets and seeds."""
        return BootstrappedOod(
            mean_over_runs(self.observed), [mean_over_runs(table) for table in self.drawn]
        )


def mean_over_runs(ood):
    """Means over the targets and seeds of a model, method and size, without curves."""
    without_curves = ood.xs(NOT_ON_CURVE, level="alpha")
    return without_curves.groupby(level=["model", "method", "size"]).mean().sort_index()


def draws_of_objects(rows):
    """How often each bootstrap draw of the grid's tables has each object, by object."""
    objects = sorted(set(rows["object_id"]))
    rng = np.random.default_rng(5)
    draws = rng.multinomial(len(objects), [1 / len(objects)] * len(objects), size=30)
    return [dict(zip(objects, draw, strict=True)) for draw in draws]


@pytest.fixture(scope="module")
def bootstrapped(grid):
    """The expected accuracies of the grid, see `BootstrappedOod`."""
    rows = grid.rows
    return BootstrappedOod(
        observed=expected_ood(rows, dict.fromkeys(rows["object_id"], 1)),
        drawn=[expected_ood(rows, weights) for weights in draws_of_objects(rows)],
    )


def by_columns(table, keys):
    """A written table with these columns as its index, without its conditions."""
    return table.set_index(keys).drop(columns="conditions")


def test_written_accuracies_are_pandas_counts_in_the_order_of_states(grid, tables):
    table = tables["accuracy"]
    rows = grid.rows[grid.rows["alpha"].isna()]
    runs = sorted(rows[RUN_COLUMNS].drop_duplicates().itertuples(index=False, name=None))
    expected_lines = [(*run, dataset) for run in runs for dataset in ("b", "val", "a", "c")]
    lines = [tuple(line) for line in table[[*RUN_COLUMNS, "dataset"]].to_numpy()]
    assert lines == expected_lines
    is_correct = rows.assign(is_correct=rows["label"] == rows["prediction"])
    by_dataset = is_correct.groupby([*RUN_COLUMNS, "dataset"])["is_correct"]
    expected = by_dataset.agg(n="size", correct="sum")
    for line in table.itertuples():
        run = (line.model, line.method, line.target, line.size, line.seed)
        of_line = expected.loc[(*run, line.dataset)]
        assert line.n == of_line["n"]
        assert line.correct == of_line["correct"]
        percent = 100 * of_line["correct"] / of_line["n"]
        assert line.accuracy == pytest.approx(percent, abs=1e-6)
    assert set(table["conditions"]) == {"protocol paper"}


def ri_by_role(accuracy):
    """RI of each fine-tuned run, by run, from accuracy.csv alone.

    It is the mean change over the run's rows with the role ood.
    """
    pretrained = accuracy[accuracy["method"] == "pretrained"].set_index(["model", "dataset"])
    percent_before = 100 * pretrained["correct"] / pretrained["n"]
    ood = accuracy[(accuracy["method"] != "pretrained") & (accuracy["role"] == "ood")]
    before = [
        percent_before[model, dataset]
        for model, dataset in zip(ood["model"], ood["dataset"], strict=True)
    ]
    change = 100 * ood["correct"] / ood["n"] - before
    return change.groupby([ood[key] for key in RUN_COLUMNS]).mean()


def test_ri_follows_from_the_rows_of_accuracy_with_the_role_ood(grid):
    """`c` is evaluated only, `val` in distribution, and the target `outside` is not evaluated."""
    tables = write_grid_tables(grid.folder, "roles", in_distribution=["val"])
    ri_of_roles = ri_by_role(tables["accuracy"])
    written_ri = tables["ri"].set_index(RUN_COLUMNS)["ri"]
    assert len(ri_of_roles) == 2 * 10
    assert len(written_ri) == 2 * 10
    assert ri_of_roles.round(6).to_dict() == pytest.approx(written_ri.to_dict(), abs=1e-9)
    role = tables["accuracy"].groupby(["target", "dataset"])["role"].unique().map(list)
    for target in ("none", "a", "b", "outside"):
        for dataset in DATASETS:
            expected_role = "target" if dataset == target else "ood"
            assert role[target, dataset] == [expected_role]
        assert role[target, "val"] == ["in_distribution"]


def test_a_variant_of_a_dataset_is_neither_ood_nor_in_distribution(grid):
    tables = write_grid_tables(
        grid.folder, "variant", ood_datasets=["a", "b"], in_distribution=["val"]
    )
    accuracy = tables["accuracy"]
    assert set(accuracy[accuracy["dataset"] == "c"]["role"]) == {"variant"}
    written_ri = tables["ri"].set_index(RUN_COLUMNS)["ri"].to_dict()
    assert ri_by_role(accuracy).round(6).to_dict() == pytest.approx(written_ri, abs=1e-9)


def test_written_ri_and_its_intervals_are_those_of_the_definitions(tables, bootstrapped):
    table = by_columns(tables["ri"], RUN_COLUMNS)
    expected_ri = bootstrapped.with_intervals("change").xs(NOT_ON_CURVE, level="alpha")
    assert sorted(table.index) == sorted(expected_ri.index)
    assert len(table) == 2 * 10
    for run, expected in expected_ri.iterrows():
        _model, _method, target, _size, _seed = run
        line = table.loc[run]
        assert line["n"] == OOD_IMAGES[target]
        written = tuple(line[["ri", "ci_low", "ci_high"]])
        assert written == pytest.approx(tuple(expected), abs=1e-6)
    assert (table["n_seen"].fillna(0) + table["n_unseen"].fillna(0) == table["n"]).all()


class TrainingImages(NamedTuple):
    """The images that runs of a target, size and seed are trained on."""

    target: str
    size: str
    seed: int


def rows_of_seen_classes(rows, training, folder):
    """(rows,) bool: whether each row is of a class that the training images show.

    They show it if a class of theirs shares its outputs.
    """
    files = DatasetFiles(training.target, folder / f"prepare/{training.target}/32px", pixels=False)
    training_images = subset(load_whole(files, ALL_IMAGES), training.size, training.seed)
    shown_outputs = set()
    for label in set(training_images.labels):
        shown_outputs.update(space_of(training.target).indices[label])
    is_seen = []
    for dataset, label in zip(rows["dataset"], rows["label"], strict=True):
        outputs = set(space_of(dataset).indices[label])
        is_seen.append(bool(outputs & shown_outputs))
    return np.array(is_seen)


def changes_from_pretrained(rows, weights):
    """Mean change of accuracy over the datasets, by StateKey."""
    by_dataset = pd.Series(accuracies_of(rows, weights)).unstack()
    means = by_dataset.mean(axis=1, skipna=False).to_dict()
    states = [StateKey(*names) for names in means]
    return {state: means[state] - means[pretrained_key(state.model)] for state in states}


@pytest.mark.thorough
@pytest.mark.parametrize("classes", ["seen", "unseen"])
def test_ri_of_seen_and_unseen_classes_is_that_of_their_images_alone(grid, tables, classes):
    table = tables["ri"]
    rows = grid.rows[grid.rows["alpha"].isna()].reset_index(drop=True)
    once = dict.fromkeys(rows["object_id"], 1)
    weights_of_replicates = [once, *draws_of_objects(rows)]
    runs = {
        TrainingImages(state.target, state.size, state.seed)
        for state in keys_of(rows)
        if state.method != "pretrained"
    }
    lines_without_images = 0
    for training in sorted(runs):
        is_seen = rows_of_seen_classes(rows, training, grid.folder)
        of_classes = is_seen if classes == "seen" else ~is_seen
        of_training = (
            (rows["target"] == training.target)
            & (rows["size"] == training.size)
            & (rows["seed"] == training.seed)
        )
        of_pretrained = rows["target"] == "none"
        is_ood = (rows["dataset"] != training.target) & (rows["dataset"] != "val")
        counted_rows = rows[of_classes & (of_training | of_pretrained) & is_ood]
        lines = table[
            (table["target"] == training.target)
            & (table["size"] == training.size)
            & (table["seed"] == training.seed)
        ].to_dict("records")
        assert lines
        if counted_rows.empty:
            lines_without_images += len(lines)
            for line in lines:
                columns = [f"ri_{classes}", f"{classes}_low", f"{classes}_high", f"n_{classes}"]
                assert np.isnan([line[column] for column in columns]).all()
            continue
        replicates = [
            changes_from_pretrained(counted_rows, weights) for weights in weights_of_replicates
        ]
        for line in lines:
            state = StateKey(line["model"], line["method"], *training, NOT_ON_CURVE)
            observed, *drawn = [changes[state] for changes in replicates]
            low, high = np.nanpercentile(drawn, [5, 95])
            assert line[f"ri_{classes}"] == pytest.approx(observed, abs=1e-6)
            assert line[f"{classes}_low"] == pytest.approx(low, abs=1e-6)
            assert line[f"{classes}_high"] == pytest.approx(high, abs=1e-6)
            of_run = (counted_rows["method"] == state.method) & (
                counted_rows["model"] == state.model
            )
            assert line[f"n_{classes}"] == of_run.sum()
    assert lines_without_images < len(table)


def test_written_mri_and_its_parts_are_means_over_targets_and_seeds(tables, bootstrapped):
    keys = ["model", "method", "size"]
    mri = by_columns(tables["mri"], keys)
    ood = by_columns(tables["ood"], [*keys, "when"])
    means = bootstrapped.means_over_runs()
    change = means.with_intervals("change")
    keys_with_ood = {(model, method, size) for model, method, size, _when in ood.index}
    assert sorted(mri.index) == list(change.index) == sorted(keys_with_ood)
    observed = bootstrapped.observed.xs(NOT_ON_CURVE, level="alpha")
    for key, expected in change.iterrows():
        line = mri.loc[key]
        assert tuple(line[["mri", "ci_low", "ci_high"]]) == pytest.approx(tuple(expected), abs=1e-6)
        for when in ("before", "after"):
            expected_accuracy = means.with_intervals(when).loc[key]
            assert line[f"ood_{when}"] == pytest.approx(expected_accuracy["estimate"], abs=1e-6)
            assert tuple(ood.loc[(*key, when)]) == pytest.approx(tuple(expected_accuracy), abs=1e-6)
        of_runs = observed.xs(key, level=keys)
        change_of_targets = of_runs.groupby(level="target")["change"].mean()
        assert line["targets"] == len(change_of_targets)
        assert line["seeds"] == of_runs.index.get_level_values("seed").nunique()
        assert line["target_sd"] == pytest.approx(change_of_targets.std(ddof=1), abs=1e-6)


def test_written_counts_are_those_of_all_rows(grid, tables):
    rows = grid.rows
    rows_of_files = [
        scored(rows[rows["dataset"].isin(datasets)]) for datasets in (["b", "val"], ["a", "c"])
    ]
    expected = count(by_runs(*rows_of_files), indexes_of(rows))
    assert expected.datasets == ["b", "val", "a", "c"]
    assert expected.objects == 9
    counts_of_models = list(read_counts(grid.folder / "plain.npz"))
    models = [{state.run.model for state in counts.states} for counts in counts_of_models]
    assert models == [{"m"}, {"n"}]
    states = [state for counts in counts_of_models for state in counts.states]
    assert states == expected.states
    for counts in counts_of_models:
        assert counts.datasets == expected.datasets
        assert counts.objects == expected.objects
        states_of_model = [i for i, state in enumerate(states) if state in counts.states]
        for dataset in IMAGES:
            correct = counts.correct[dataset]
            assert (correct == expected.correct[dataset][states_of_model]).all()
            assert correct.dtype == np.uint16
            assert (counts.images[dataset] == expected.images[dataset]).all()
            assert (counts.object_indices[dataset] == expected.object_indices[dataset]).all()
            assert (counts.labels[dataset] == expected.labels[dataset]).all()


def test_mri_for_dvc_is_the_tables_with_sizes_named(grid, tables):
    mri_of_models = read_json(grid.folder / "plain.json")
    assert set(mri_of_models) == {"m", "n"}
    for mri_of_methods in mri_of_models.values():
        assert set(mri_of_methods) == {"ft", "ft, 5", "lwf"}
    for line in tables["mri"].itertuples():
        method = line.method if line.size == "all" else f"{line.method}, {line.size}"
        assert mri_of_models[line.model][method] == line.mri


def test_states_of_curves_have_a_table_of_their_own(grid, tables, bootstrapped):
    table = by_columns(tables["curves"], STATE_COLUMNS)
    rows = grid.rows
    states = [state for state in keys_of(rows) if state.alpha != NOT_ON_CURVE]
    assert sorted(table.index) == sorted(states)
    assert len(states) == 16
    after = bootstrapped.with_intervals("after")
    change = bootstrapped.with_intervals("change")
    accuracies = accuracies_of(rows, dict.fromkeys(rows["object_id"], 1))
    for state in states:
        key = tuple(state)
        line = table.loc[key]
        expected_ood_accuracy = tuple(after.loc[key])
        expected_ri = tuple(change.loc[key])
        assert tuple(line[["ood", "ood_low", "ood_high"]]) == pytest.approx(
            expected_ood_accuracy, abs=1e-6
        )
        assert tuple(line[["ri", "ci_low", "ci_high"]]) == pytest.approx(expected_ri, abs=1e-6)
        assert line["n"] == OOD_IMAGES[state.target]
        if state.target == "outside":
            assert np.isnan(line["downstream"])
        else:
            on_target = accuracies[*state, state.target]
            assert line["downstream"] == pytest.approx(on_target, abs=1e-6)


def test_written_tables_are_leak_free_where_groups_are_given(grid, tables):
    """b and c are made from the same sources.

    All of c's objects are among b's, three of b's seven among c's.
    """

    def leaks(rows, target):
        if target != "b":
            return pd.Series(False, rows.index)
        objects_of_b = [f"o{i}" for i in range(OBJECTS["b"])]
        return (rows["dataset"] == "c") & rows["object_id"].isin(objects_of_b)

    groups = {"b": "g", "c": "g", "a": "other"}
    leak_free = write_grid_tables(grid.folder, "leak-free", source_groups=groups, replicates=10)
    once = dict.fromkeys(grid.rows["object_id"], 1)
    expected = expected_ood(grid.rows, once, leaks)  # nothing of c is left when b is the target
    images = {"a": 11 + 6, "b": 8, "outside": 11 + 8 + 6}
    for line in leak_free["ri"].itertuples():
        key = (line.model, line.method, line.target, line.size, line.seed, NOT_ON_CURVE)
        assert line.ri == pytest.approx(expected.loc[key]["change"], abs=1e-6)
        assert line.n == images[line.target]
    accuracy = leak_free["accuracy"]
    pd.testing.assert_frame_equal(
        accuracy.drop(columns="role"), tables["accuracy"].drop(columns="role")
    )
    shared = accuracy[accuracy["role"] == "shared"]
    assert set(zip(shared["target"], shared["dataset"], strict=True)) == {("b", "c")}


def numbers_of_runs(table, columns):
    """Columns of a table as an array, in the order of the names of its runs."""
    names = [column for column in RUN_COLUMNS if column in table]
    return table.set_index(names)[columns].sort_index().to_numpy()


def test_the_table_leak_free_has_the_numbers_of_a_leak_free_run(grid, tables):
    # given
    groups = {"b": "g", "c": "g", "a": "other"}
    of_leak_free_run = write_grid_tables(grid.folder, "free", source_groups=groups)
    # when
    made = write_grid_tables(
        grid.folder, "beside", leaking_groups=groups, sharing_targets=["b"], replicates=30
    )
    # then
    leak_free = made.pop("leak_free")
    means = leak_free[leak_free["target"] == MEAN]
    assert set(leak_free["target"]) == {"b", MEAN}
    mri = of_leak_free_run["mri"]
    np.testing.assert_allclose(numbers_of_runs(means, LEAK_FREE), numbers_of_runs(mri, MRI))
    np.testing.assert_allclose(
        numbers_of_runs(means, ["ri", "ci_low", "ci_high"]), numbers_of_runs(tables["mri"], MRI)
    )
    assert (means["ri"] - means["leak_free"]).abs().max() > 1
    # and of the target as means over seeds
    ri = of_leak_free_run["ri"]
    ri_of_b = ri[ri["target"] == "b"].groupby(GROUP)["ri"].mean()
    of_b = leak_free[leak_free["target"] == "b"]
    np.testing.assert_allclose(numbers_of_runs(of_b, "leak_free"), ri_of_b, atol=1e-6)
    # and so are the numbers of targets
    is_on_b = made["ri"].assign(share=made["ri"]["target"] == "b").groupby(GROUP)["share"].any()
    assert numbers_of_runs(means, "sharing_targets").tolist() == is_on_b.astype(int).tolist()
    assert set(of_b["targets"]) == set(of_b["sharing_targets"]) == {1}
    # and all other tables are as without it
    assert made.keys() == tables.keys()
    for name, table in tables.items():
        pd.testing.assert_frame_equal(made[name], table)
    assert (grid.folder / "beside.npz").read_bytes() == (grid.folder / "plain.npz").read_bytes()


def test_a_target_that_leaves_no_other_image_has_no_leak_free_number(tmp_path):
    # given: all images of all datasets show one object
    rows = grid_rows(3)
    rows["object_id"] = "o0"
    write_indexes(tmp_path, rows)
    for run_file in write_rows(tmp_path, scored(rows), "one"):
        networks = [{"method": run_file.parts[-4]}]
        manifest = {"device": "cpu", "trained_on": {}, "fit": {}, "networks": networks}
        write_json(run_file.with_name("one.manifest.json"), manifest)
    groups = {"a": "g", "b": "g", "c": "g"}
    # when
    made = write_grid_tables(
        tmp_path, "t", leaking_groups=groups, sharing_targets=["a", "b"], replicates=5
    )
    # then
    assert set(made["leak_free"]["target"]) == {"a", "b", MEAN}
    assert made["leak_free"][LEAK_FREE].isna().all(axis=None)


def test_a_dataset_with_an_image_that_is_identical_to_one_of_the_target_has_the_role_shared():
    choices = {"ood_datasets": ["a", "b", "c"], "in_distribution": ["val"], "source_groups": {}}
    counts = replace(counted(grid_rows(3)), shared={})
    assert roles_of(counts, "b", **choices)["c"] == "ood"
    is_identical = np.arange(len(counts.object_indices["c"])) == 0
    with_identical = replace(counts, shared={("b", "c"): is_identical})
    assert roles_of(with_identical, "b", **choices) == {
        "a": "ood",
        "b": "target",
        "c": "shared",
        "val": "in_distribution",
    }
    assert roles_of(with_identical, "a", **choices)["c"] == "ood", (
        "it is identical to none of this target"
    )


def test_leak_free_keeps_the_objects_that_the_target_lacks():
    """Of c's objects b has some: with c's accuracies over the others alone, before and after."""
    rows = grid_rows(3)
    rows.loc[rows["dataset"] == "c", "object_id"] += "x"
    is_shared = (rows["dataset"] == "c") & (rows["object_id"] == "o1x")
    rows.loc[is_shared, "object_id"] = "o1"  # two images
    counts = counted(rows)
    weights = object_weights(counts.objects, 50, 0)
    groups = {"b": "g", "c": "g", "a": "h"}

    def leaks(rows, target):
        same_sources = {"b": "c", "c": "b"}.get(target)
        return (rows["dataset"] == same_sources) & (rows["object_id"] == "o1")

    ood = ood_accuracies(counts, weights, ood_datasets=DATASETS, source_groups=groups)
    objects = sorted(set(rows["object_id"]))
    images = {"a": 11 + 6, "b": 8 + 4, "outside": 11 + 8 + 6}
    for replicate in (0, 1, 2, 50):
        weights_of_objects = dict(zip(objects, weights[replicate], strict=True))
        expected = expected_ood(rows, weights_of_objects, leaks)
        for state, accuracies in ood.items():
            of_state = expected.loc[tuple(key_of(state))]
            before = accuracies.before[replicate]
            after = accuracies.after[replicate]
            assert before == pytest.approx(of_state["before"], nan_ok=True)
            assert after == pytest.approx(of_state["after"], nan_ok=True)
            assert accuracies.images == images[state.run.target]
    parts_of_objects = ood_parts(counts, DATASETS, groups)
    for state, accuracies in ood.items():
        sums = parts_of_objects[state].sum(axis=1)
        assert sums == pytest.approx([accuracies.before[0], accuracies.after[0]])


def test_what_each_object_adds_is_its_answers_over_the_datasets_images(grid):
    rows = grid.rows
    objects = sorted(set(rows["object_id"]))
    answers = rows.assign(
        alpha=rows["alpha"].fillna(NOT_ON_CURVE),
        is_correct=(rows["label"] == rows["prediction"]).astype(float),
    )
    by_object = answers.groupby([*STATE_COLUMNS, "dataset", "object_id"])["is_correct"]
    correct = by_object.sum().to_dict()
    for state, (before, after) in ood_parts(counted(rows), DATASETS).items():
        key = key_of(state)
        pretrained = pretrained_key(state.run.model)
        others = [dataset for dataset in DATASETS if dataset != state.run.target]
        expected = dict.fromkeys(objects, 0.0)
        for object_id in objects:
            for dataset in others:
                if (*key, dataset, object_id) not in correct:
                    continue  # the dataset has no image of it
                gained = (
                    correct[*key, dataset, object_id] - correct[*pretrained, dataset, object_id]
                )
                expected[object_id] += 100 * gained / IMAGES[dataset] / len(others)
        assert list(after - before) == pytest.approx(list(expected.values()), abs=1e-9)


def test_the_same_rows_give_the_same_bytes_in_any_order_of_rows(grid, tables):
    write_grid_tables(grid.folder, "again")
    first_files = list(grid.folder.glob("plain*"))
    assert len(first_files) == len(tables) + 2, "the tables, their counts and mRI for DVC"
    for file in first_files:
        again = grid.folder / file.name.replace("plain", "again")
        assert again.read_bytes() == file.read_bytes()
    rows = scored(grid.rows)
    indexes = indexes_of(grid.rows)
    counts = count(by_runs(rows), indexes)
    counts_of_shuffled = count(by_runs(rows.sample(frac=1, random_state=1)), indexes)
    assert counts_of_shuffled.states == counts.states
    for dataset in IMAGES:
        assert has_equal_counts(counts_of_shuffled, counts, dataset)


def test_a_gain_of_every_answer_on_a_dataset_raises_ri_by_its_share(rows):
    """All wrong answers on c made right.

    RI of a target rises by c's mistakes over the number of datasets.
    """

    def ri_of(rows):
        ood = ood_accuracies(counted(rows), weights)
        return ri_table(ood, 0.95).set_index(RUN_COLUMNS)["ri"]

    weights = object_weights(counted(rows).objects, 1, 0)
    without_mistakes = rows.copy()
    fine_tuned_on_c = (rows["dataset"] == "c") & (rows["method"] == "ft")
    without_mistakes.loc[fine_tuned_on_c, "prediction"] = rows.loc[fine_tuned_on_c, "label"]
    gain = ri_of(without_mistakes) - ri_of(rows)
    for (_model, method, target, _size, seed), gained in gain.items():
        mistakes = 0
        if method == "ft":
            mistakes = 100 - accuracy(rows, "ft", target, seed, "c")
        assert gained == pytest.approx(mistakes / 2)


def without_the_last_image(rows):
    """Rows of which the last run was not scored on an image."""
    return rows.drop(index=rows.index[-1])


def without_a_dataset(rows):
    """Rows of which a method was not scored on c."""
    return rows.drop(index=rows[(rows["dataset"] == "c") & (rows["method"] == "ft")].index)


def with_other_images(rows):
    """Rows of which a method was scored on the images before those of others."""
    return rows.assign(row=rows["row"] - (rows["method"] == "lwf"))


@pytest.mark.parametrize(
    "change",
    [
        without_the_last_image,
        without_a_dataset,
        with_other_images,
    ],
    ids=[
        "an image fewer",
        "a dataset fewer",
        "the same number of other images",
    ],
)
def test_any_difference_of_images_between_runs_is_refused(rows, change):
    with pytest.raises(UserError, match=r"m/.*/0 and m/.*/[01] .* of [abc];"):
        count(by_runs(change(scored(rows))), indexes_of(rows))


def test_an_object_with_images_of_several_classes_counts_once_for_each():
    """Object x has two images of class 3 and one of class 1, y one of class 3.

    The index has an image more.
    """
    index = pd.DataFrame({"object_id": ["y", "x", "unused", "x", "x"], "label": [3, 3, 9, 1, 3]})
    scored_rows = {"dataset": "a", "row": [0, 1, 3, 4]}
    pretrained = {**columns_of_run("pretrained", "none"), **scored_rows, "rank": [0, 0, 1, 2]}
    fine_tuned = {**columns_of_run("ft", "b"), **scored_rows, "rank": [5, 0, 0, 0]}
    rows = [pd.DataFrame(pretrained), pd.DataFrame(fine_tuned)]
    counts = count(by_runs(*rows), {"a": index})
    assert counts.objects == 2
    assert counts.object_indices["a"].tolist() == [0, 0, 1]
    assert counts.labels["a"].tolist() == [1, 3, 3]
    assert counts.images["a"].tolist() == [1, 2, 1]
    assert [state.run.method for state in counts.states] == ["ft", "pretrained"]
    assert counts.correct["a"].tolist() == [[1, 2, 0], [0, 1, 1]]
    weights = np.array([[1, 1], [2, 1]], np.uint8)
    accuracy = counts.accuracy_on("a", weights, ALL_INDICES, ALL_INDICES)
    with_x_twice = [pytest.approx(600 / 7), pytest.approx(300 / 7)]
    assert accuracy.tolist() == [[75, 50], with_x_twice]
    ((before, after),) = ood_parts(counts).values()
    assert (after - before).tolist() == [50, -25]


@pytest.mark.parametrize(("images", "type_of_counts"), [(65_535, "uint16"), (65_536, "uint32")])
def test_an_object_may_have_more_images_than_16_bits_can_count(tmp_path, images, type_of_counts):
    """All images but the first are right before fine-tuning, half of them after it."""
    # given
    index = pd.DataFrame({"object_id": ["x"] * images, "label": 0})
    of_images = {"dataset": "a", "row": range(images)}
    is_wrong = np.arange(images) % 2
    pretrained = {
        **columns_of_run("pretrained", "none"),
        **of_images,
        "rank": [1] + [0] * (images - 1),
    }
    fine_tuned = {**columns_of_run("ft", "b"), **of_images, "rank": is_wrong}
    # when
    counts = count(by_runs(pd.DataFrame(pretrained), pd.DataFrame(fine_tuned)), {"a": index})
    write_counts(counts, tmp_path / "counts.npz")
    (stored_counts,) = read_counts(tmp_path / "counts.npz")
    # then
    for found in (counts, stored_counts):
        assert found.images["a"].tolist() == [images]
        assert found.correct["a"].tolist() == [[images - is_wrong.sum()], [images - 1]]
        assert found.images["a"].dtype == found.correct["a"].dtype == type_of_counts
        twice = np.array([[2]], np.uint8)
        accuracies = found.accuracy_on("a", twice, ALL_INDICES, ALL_INDICES)
        expected = [100 * (images - is_wrong.sum()) / images, 100 * (images - 1) / images]
        assert accuracies.tolist() == [pytest.approx(expected)]
    ((before, after),) = ood_parts(counts).values()
    assert [after.sum(), before.sum()] == pytest.approx(expected)


def test_a_draw_without_any_object_of_a_dataset_has_no_accuracy_and_intervals_leave_it_out(rows):
    counts = counted(rows)
    objects_of_a_and_b = {*counts.object_indices["a"], *counts.object_indices["b"]}
    is_of_c_alone = np.array([i not in objects_of_a_and_b for i in range(counts.objects)])
    assert is_of_c_alone.sum() == 3
    all_objects = np.ones(counts.objects, np.uint8)
    weights = np.stack([all_objects, is_of_c_alone.astype(np.uint8)])
    for dataset in DATASETS:
        accuracies = counts.accuracy_on(dataset, weights, ALL_INDICES, ALL_INDICES)
        assert accuracies.shape == (2, 9)
        of_all_objects, of_c_alone = accuracies
        assert np.isfinite(of_all_objects).all()
        if dataset == "c":
            assert np.isfinite(of_c_alone).all()
        else:
            assert np.isnan(of_c_alone).all()
    last_object = np.flatnonzero(is_of_c_alone)[-1]  # with one image
    weights = np.eye(1, counts.objects, last_object, dtype=np.uint8)
    accuracies = counts.accuracy_on("c", weights, ALL_INDICES, ALL_INDICES)
    assert set(accuracies.flat) == {0, 100}
    assert estimate(np.array([9.0, 1.0, np.nan, 3.0]), 0.5) == (9, 1.5, 2.5)


def test_states_are_in_the_order_of_their_runs_and_alphas_the_one_without_first(rows):
    pretrained = rows[rows["method"] == "pretrained"]
    curves = []
    for seed in (10, 9):
        for alpha in (0.5, np.nan, 1.0, 0.25):
            curves.append(pretrained.assign(method="curve", target="a", seed=seed, alpha=alpha))
    counts = counted(*curves, pretrained)
    expected = []
    for seed in (9, 10):
        for alpha in (None, 0.25, 0.5, 1.0):
            expected.append(state_of("m", "curve", "a", "all", seed, alpha))
    expected.append(state_of("m", "pretrained", "none", "all", 0, None))
    assert counts.states == expected
    assert counts.states == sorted(set(counts.states))


def test_rows_of_categories_are_counted_as_rows_of_text(rows):
    """As Parquet gives them where a file holds dictionaries; not every category need occur."""
    text_columns = ["model", "method", "target", "size", "dataset"]
    category = rows[text_columns].stack().astype("category").dtype
    with_categories = scored(rows).astype(dict.fromkeys(text_columns, category))
    tables = [with_categories[rows["dataset"] == dataset] for dataset in DATASETS]
    assert all(len(table["dataset"].cat.categories) > 3 for table in tables)
    counts = count(by_runs(*tables), indexes_of(rows))
    expected = counted(rows)
    assert counts.states == expected.states
    assert counts.datasets == expected.datasets
    for dataset in DATASETS:
        assert (counts.correct[dataset] == expected.correct[dataset]).all()


def test_the_fit_of_every_run_is_that_of_its_manifest(grid, tables):
    """That of a curve, which has several states, is unknown."""
    fine_tuned = grid.rows[grid.rows["method"] != "pretrained"]
    runs = set(fine_tuned[RUN_COLUMNS].itertuples(index=False, name=None))
    table = tables["fit"].set_index(RUN_COLUMNS)
    assert set(table.index) == runs
    assert set(table["underfitted"]) == {"no"}
    for (_model, method, target, _size, _seed), fit in table["fit"].items():
        if method == "curve":
            assert np.isnan(fit)
        elif target == "a":
            assert fit == 80
        else:
            assert fit == 96
    with_threshold = write_grid_tables(grid.folder, "threshold", threshold=0.95)["fit"]
    underfitted = with_threshold[with_threshold["underfitted"] == "yes"]
    assert set(zip(underfitted["method"], underfitted["target"], strict=True)) == {
        ("ft", "a"),
        ("curve", "a"),
        ("curve", "outside"),
    }


# Identical images


# By dataset, what stands for the photo of each image: equal ones are of identical images.
PHOTOS = {"a": ["1", "2", "2", "3"], "b": ["4", "3", "5"], "c": ["6", "7"]}


def distinct_photos():
    """Photos of as many images as `PHOTOS` has, of which no two are identical."""
    return {
        dataset: [f"{dataset}{row}" for row in range(len(photos))]
        for dataset, photos in PHOTOS.items()
    }


def write_photo_indexes(folder, photos, objects=None):
    """Write an index of each dataset; gives their paths.

    Args:
        photos: by dataset, what stands for the photo of each image.
        objects: by dataset, the object of each image; without them each is an object of its own.
    """
    paths = []
    for dataset, photos_of_dataset in photos.items():
        prepared = folder / f"prepare/{dataset}/32px"
        prepared.mkdir(parents=True)
        sources = [f"{dataset}/{row}" for row in range(len(photos_of_dataset))]
        index = pd.DataFrame(
            {
                "object_id": sources if objects is None else objects[dataset],
                "source_id": sources,
                "label": 0,
                PHOTO: photos_of_dataset,
            }
        )
        index.to_parquet(prepared / "index.parquet")
        paths.append(prepared / "index.parquet")
    return paths


def answers_of(photos):
    """Rows of a pretrained and a fine-tuned model, of which each is right on half of the images."""
    rng = np.random.default_rng(1)
    tables = []
    for method, target in (("pretrained", "none"), ("ft", "a")):
        for dataset, photos_of_dataset in photos.items():
            n = len(photos_of_dataset)
            answers = {"dataset": dataset, "row": range(n), "rank": rng.integers(0, 2, n)}
            tables.append(pd.DataFrame({**columns_of_run(method, target), **answers}))
    return pd.concat(tables, ignore_index=True)


def test_identical_images_of_any_datasets_are_one_object(tmp_path):
    """Given identical images under several ids, all counts are those of images with one id."""
    objects = {"a": ["a/0", "a/1", "a/1", "a/3"], "b": ["b/0", "a/3", "b/2"], "c": ["c/0", "c/1"]}
    indexes = read_objects(write_photo_indexes(tmp_path / "photos", PHOTOS))
    assert {name: index["object_id"].tolist() for name, index in indexes.items()} == objects
    indexes_with_declared_objects = read_objects(
        write_photo_indexes(tmp_path / "declared", distinct_photos(), objects)
    )
    rows = answers_of(PHOTOS)
    counts = count(by_runs(rows), indexes)
    expected = count(by_runs(rows), indexes_with_declared_objects)
    assert counts.objects == 7
    assert expected.objects == 7
    for dataset in PHOTOS:
        assert has_equal_counts(counts, expected, dataset)
        assert (counts.images[dataset] == expected.images[dataset]).all()


def test_leak_free_leaves_out_an_identical_image_of_a_dataset_of_other_sources(tmp_path):
    """An image of b is identical to one of the target a.

    RI is over the other images of b and c.
    """
    rows = answers_of(PHOTOS)
    counts = count(by_runs(rows), read_objects(write_photo_indexes(tmp_path, PHOTOS), {}))
    write_counts(counts, tmp_path / "counts.npz")
    (stored,) = read_counts(tmp_path / "counts.npz")
    percent = rows.assign(percent=100.0 * (rows["rank"] == 0))
    by_image = percent.set_index(["method", "dataset", "row"])["percent"]
    change = by_image["ft"] - by_image["pretrained"]
    change_on_b = change["b"][[0, 2]].mean()  # without the identical image
    change_on_c = change["c"].mean()
    for counts_of_grid in (counts, stored):
        weights = object_weights(counts_of_grid.objects, 5, 0)
        (leak_free,) = ood_accuracies(counts_of_grid, weights, source_groups={}).values()
        assert leak_free.images == 4
        assert leak_free.change[0] == pytest.approx(np.mean([change_on_b, change_on_c]))
        (with_leaks,) = ood_accuracies(counts_of_grid, weights).values()
        assert with_leaks.images == 5, "without leak_free it counts"


def test_leak_free_keeps_other_images_of_the_object_of_an_identical_one(tmp_path):
    """b has an image of a and, as another drawing, the object of that image; the latter counts."""
    photos = {"a": ["1", "2"], "b": ["1", "3"], "c": ["4"]}
    objects = {"a": ["o0", "o1"], "b": ["o5", "o0"], "c": ["o0"]}
    indexes = read_objects(write_photo_indexes(tmp_path, photos, objects), {})
    counts = count(by_runs(answers_of(photos)), indexes)
    weights = object_weights(counts.objects, 5, 0)
    (ood,) = ood_accuracies(counts, weights, source_groups={}).values()
    assert ood.images == 1 + 1
    assert counts.objects == 2


def test_equal_source_ids_of_datasets_without_a_common_group_are_not_shared(tmp_path):
    photos = {"a": ["1", "2"], "b": ["3", "4"]}
    paths = write_photo_indexes(tmp_path, photos)
    for path in paths:
        pd.read_parquet(path).assign(source_id=["0", "1"]).to_parquet(path)
    rows = answers_of(photos)
    without_group = count(by_runs(rows), read_objects(paths, {}))
    assert without_group.shared == {}
    with_group = count(by_runs(rows), read_objects(paths, {"a": "g", "b": "g"}))
    assert set(with_group.shared) == {("a", "b")}


def test_the_table_of_identical_images_has_those_within_a_dataset_and_of_others(tmp_path):
    """Pairs within a, of a and b, and of b and c with other classes count in their own columns."""
    photos = {"a": ["1", "1", "2", "3"], "b": ["2", "4", "5"], "c": ["5", "6"]}
    paths = write_photo_indexes(tmp_path, photos)
    _path_of_a, _path_of_b, path_of_c = paths
    pd.read_parquet(path_of_c).assign(label=[1, 1]).to_parquet(path_of_c)
    classes = [path.with_name("classes.json") for path in paths]
    for path in classes:
        write_json(path, LabelSpace(("x", "y"), ((0,), (1,)), ("x", "y")).to_json())
    labels = {"a": "A", "b": "B", "c": "C"}
    table = identical_table(labels, paths, classes).set_index("dataset")
    columns = ["identical", "shared", "shared_with", "other_class"]
    assert table.loc["a", columns].tolist() == [2, 1, "B 1", 0]
    assert table.loc["b", columns].tolist() == [0, 2, "A 1, C 1", 1]
    assert table.loc["c", columns].tolist() == [0, 1, "B 1", 1]
