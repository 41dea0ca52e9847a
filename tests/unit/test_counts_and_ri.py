"""RI, mRI and their intervals against the definitions written out, and against a slow bootstrap."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rib.analyses.data_and_models.tables import identical_table
from rib.analysis.bootstrap import estimate, object_weights
from rib.analysis.counts import (
    ALL_INDICES,
    COLUMNS,
    RowFiles,
    count,
    read_counts,
    read_indexes,
    read_objects,
    write_counts,
)
from rib.analysis.ri import ood_accuracies, ood_parts
from rib.analysis.scored_state import STATE_COLUMNS
from rib.analysis.settings import FitRule, GridTableSettings, RIStatistics
from rib.analysis.tables import grid_tables, json_by_method, ri_table, roles_of
from rib.analysis.writing import write_tables
from rib.base.errors import UserError
from rib.base.files import write_json
from rib.config.label_space import LabelSpace
from rib.config.run import RUN_COLUMNS
from rib.data.identity import PHOTO
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, DatasetView, load_whole
from tiny.rows import by_runs, write_rows
from tiny.states import columns_of_run, state_of

DATASETS = ["a", "b", "c"]
TARGETS = ["a", "b"]


def scored(rows):
    """Evaluation rows: what an image is stands in the index of its dataset."""
    place = rows.groupby([*STATE_COLUMNS, "dataset"], dropna=False, observed=True).cumcount()
    return rows.assign(row=place, rank=(rows["label"] != rows["prediction"]).astype("int16"))[
        [*RUN_COLUMNS, *COLUMNS]
    ]


def indexes_of(rows):
    first = rows[(rows["method"] == "pretrained") & (rows["model"] == rows["model"].iloc[0])]
    return {
        name: part.reset_index(drop=True) for name, part in first.groupby("dataset", observed=True)
    }


def counted(*parts):
    rows = pd.concat(parts, ignore_index=True)
    return count(by_runs(scored(rows)), indexes_of(rows))


def space_of(dataset):
    """Of five classes with two outputs each, of which a dataset shares some with the next."""
    first = {"a": 0, "b": 3, "c": 6, "val": 9, "outside": 4}[dataset]
    keys = tuple("vwxyz")
    return LabelSpace(keys, tuple((first + place, 20 + first + place) for place in range(5)), keys)


def write_indexes(folder, rows):
    """Indexes and classes as prepare jobs write them.

    `outside` is a target that is not evaluated on.
    """
    outside = pd.DataFrame({"object_id": [f"o{i}" for i in range(6)], "label": [0, 0, 1, 1, 1, 2]})
    for name, part in {**indexes_of(rows), "outside": outside}.items():
        place = folder / f"prepare/{name}/32px"
        place.mkdir(parents=True)
        ids = [f"i{row}" for row in range(len(part))]
        part = part[["object_id", "label"]].assign(
            row=range(len(part)), image_id=ids, source_id=ids
        )
        part.to_parquet(place / "index.parquet")
        write_json(place / "classes.json", space_of(name).to_json())
    return prepared(folder)


def prepared(folder):
    """Indexes and datasets in a folder."""
    indexes = sorted(folder.glob("prepare/*/*/index.parquet"))
    datasets = [DatasetFiles(path.parts[-3], path.parent, pixels=False) for path in indexes]
    return indexes, datasets


def settings_of(*, in_distribution=(), compared=None, threshold=None, **statistics):
    """Settings of `grid_tables`."""
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
        view=DatasetView(geometry=None, budget="all", images_per_class=None),
        excludes_proxy=[],
        split=[],
        compared=compared,
        conditions="protocol paper",
        code="",
    )


@pytest.fixture
def rows():
    """Rows of one model: pretrained, and methods x targets x seeds.

    Objects overlap between datasets.
    """
    rng = np.random.default_rng(0)
    parts = []
    for method, target, seed in [
        ("pretrained", "none", 0),
        *(
            (method, target, seed)
            for method in ("ft", "lwf")
            for target in TARGETS
            for seed in (0, 1)
        ),
    ]:
        for dataset, n in zip(DATASETS, (9, 7, 12), strict=True):
            objects = [f"o{i}" for i in range(n)]
            labels = np.arange(n)
            wrong = rng.random(n) < 0.4
            run = columns_of_run(method, target, seed)
            answers = {"label": labels, "prediction": labels + wrong}
            parts.append(pd.DataFrame({**run, "dataset": dataset, "object_id": objects, **answers}))
    return pd.concat(parts, ignore_index=True)


def accuracy(rows, method, target, seed, dataset):
    part = rows.query(
        "method == @method and target == @target and seed == @seed and dataset == @dataset"
    )
    return 100 * (part["label"] == part["prediction"]).mean()


def test_the_pretrained_model_compared_with_itself_has_ri_zero_without_spread(rows):
    pretrained = rows[rows["method"] == "pretrained"]
    same = pd.concat([pretrained, pretrained.assign(method="ft", target="a")])
    counts = counted(same)
    ood = ood_accuracies(counts, object_weights(counts.objects, 100, 0))
    assert ri_table(ood, 0.95)[["ri", "ci_low", "ci_high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_evaluations_on_different_devices_are_not_mixed(tmp_path, rows):
    manifests = []
    for device in ("cpu", "cuda"):
        manifests.append(tmp_path / f"{device}.json")
        manifests[-1].write_text(f'{{"device": "{device}", "fit": {{}}}}')
    indexes, datasets = write_indexes(tmp_path, rows)
    with pytest.raises(UserError, match="cpu and cuda.*compute.device"):
        grid_tables(
            files=RowFiles(write_rows(tmp_path, scored(rows)), indexes),
            manifests=manifests,
            datasets=datasets,
            settings=settings_of(),
            counts_file=tmp_path / "counts.npz",
        )


def test_leak_free_drops_a_dataset_of_which_nothing_is_left(rows):
    small = rows[(rows["dataset"] != "c") | rows["object_id"].isin([f"o{i}" for i in range(5)])]
    counts = counted(small)
    weights = object_weights(counts.objects, 10, seed=1)
    found = ood_accuracies(counts, weights, source_groups={"a": "g", "c": "g"})
    line = next(
        pair for state, pair in found.items() if (state.run.method, state.run.target) == ("ft", "a")
    )
    assert line.images == 7
    with pytest.raises(UserError, match="leak_free.* as a,"):
        ood_accuracies(counts, weights, ood_datasets=["a", "c"], source_groups={"a": "g", "c": "g"})


# All tables of a grid, against pandas


SETS = {
    "b": 11,
    "a": 8,
    "c": 6,
    "val": 9,
}  # images, in the order of evaluation; `val` is in distribution
OBJECTS = {"b": 7, "a": 8, "c": 3, "val": 9}  # of which the first have several images
GRID = [
    ("pretrained", "none", "all", 0, np.nan),
    *(
        ("ft", target, size, seed, np.nan)
        for target in "ba"
        for size in ("all", "5")
        for seed in (0, 1)
    ),
    *(("lwf", target, "all", 0, np.nan) for target in ("a", "outside")),
    *(
        ("curve", target, "all", seed, alpha)
        for target in ("a", "outside")
        for seed in (0, 1)
        for alpha in (0.0, 0.5)
    ),
]


def grid_rows(seed=0):
    """Of two models; `outside` is a target that is not evaluated on."""
    rng = np.random.default_rng(seed)
    classes = {dataset: rng.integers(0, 5, n) for dataset, n in SETS.items()}
    parts = []
    for model in ("n", "m"):
        for method, target, size, number, alpha in GRID:
            for dataset, n in SETS.items():
                run = {
                    "model": model,
                    "method": method,
                    "target": target,
                    "size": size,
                    "seed": number,
                    "alpha": alpha,
                }
                objects = [f"o{i % OBJECTS[dataset]}" for i in range(n)]
                labels = classes[dataset]
                answers = np.where(rng.random(n) < 0.6, labels, labels + 1)
                part = {
                    **run,
                    "dataset": dataset,
                    "object_id": objects,
                    "label": labels,
                    "prediction": answers,
                }
                parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with rows in two files and their manifests, and the rows."""
    folder, rows = tmp_path_factory.mktemp("grid"), grid_rows()
    for name, part in (
        ("one", rows["dataset"].isin(["b", "val"])),
        ("two", rows["dataset"].isin(["a", "c"])),
    ):
        write_rows(folder, scored(rows[part]).assign(confidence=0.5), name)
    write_indexes(folder, rows)
    for model, (method, target, size, seed, _) in itertools.product("nm", GRID):
        fit = {"pretrained": {}, "curve": {"ft": 0.8}}.get(
            method, {method: 0.8 if target == "a" else 0.96}
        )
        manifest = folder / model / target / method / size / str(seed) / "set.manifest.json"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"device": "cpu", "fit": fit}))
    return folder, rows


@pytest.fixture
def grid(files):
    """The folder, the rows, and the tables that `grid_tables` makes of them, by name."""
    return *files, written(files[0], "plain")


def written(folder, name, **choices):
    inside = ("in_distribution",) if "in_distribution" in choices else ()
    tables = ("accuracy", "fit", "ri", "mri", "ood", "curves", "classes", "worst_classes", *inside)
    outputs = {table: folder / f"{name}_{table}.csv" for table in tables}
    indexes, datasets = prepared(folder)
    paths = [path for name in ("one", "two") for path in sorted(folder.rglob(f"{name}.parquet"))]
    tables_of_grid = grid_tables(
        files=RowFiles(paths, indexes),
        manifests=sorted(folder.rglob("*.manifest.json")),
        datasets=datasets,
        settings=settings_of(**choices),
        counts_file=folder / f"{name}.npz",
    )
    write_tables(tables_of_grid, outputs, conditions="protocol paper")
    write_json(folder / f"{name}.json", json_by_method(tables_of_grid["mri"]))
    found = {table: pd.read_csv(path, dtype={"size": str}) for table, path in outputs.items()}
    return {**found, "json": json.loads((folder / f"{name}.json").read_text())}


def test_the_table_of_datasets_in_distribution_has_means_over_targets_and_seeds(
    files, tmp_path_factory
):
    folder, rows = files
    found = written(folder, "inside", in_distribution=["val"])["in_distribution"]
    right = rows.assign(right=100.0 * (rows["label"] == rows["prediction"]))[
        rows["dataset"] == "val"
    ]
    means = (
        right[right["alpha"].isna()]
        .groupby(["model", "method", "size", "target", "seed"])["right"]
        .mean()
    )
    assert len(found) and not (folder / "none_in_distribution.csv").exists()
    for line in found.itertuples():
        after = means[line.model, line.method, line.size].mean()
        before = means[line.model, "pretrained", "all"].mean()
        assert (line.before, line.after, line.change) == pytest.approx(
            (before, after, after - before), abs=1e-5
        )
        assert line.ci_low <= line.change <= line.ci_high


def plain(state):
    """A state as the references below have it: without a curve alpha is -1, since NaN is no key."""
    return (*state[:-1], -1.0 if state[-1] is None or np.isnan(state[-1]) else state[-1])


def accuracies_of(rows, weights):
    """Percent by state and dataset, each image weighted as its object is."""
    weighed = rows.assign(
        alpha=rows["alpha"].fillna(-1), weight=rows["object_id"].map(weights).astype(float)
    )
    weighed["right"] = weighed["weight"] * (weighed["label"] == weighed["prediction"])
    sums = weighed.groupby([*STATE_COLUMNS, "dataset"])[["weight", "right"]].sum()
    return (100 * sums["right"] / sums["weight"].where(sums["weight"] > 0)).to_dict()


def expected_ood(rows, weights, drop=None):
    """Mean accuracies on the other datasets, before and after, of every fine-tuned state.

    They are computed by the definitions.
    """
    found, accuracies = {}, {}
    states = [
        plain(state)
        for state in rows[STATE_COLUMNS].drop_duplicates().itertuples(index=False, name=None)
    ]
    for state in states:
        model, method, target, *_ = state
        if method != "pretrained":
            left_out = target if drop else None
            if left_out not in accuracies:
                accuracies[left_out] = accuracies_of(
                    rows[~drop(rows, target)] if drop else rows, weights
                )
            accuracy = accuracies[left_out]
            others = [name for name in "abc" if name != target and (*state, name) in accuracy]
            before = [accuracy[model, "pretrained", "none", "all", 0, -1, name] for name in others]
            found[state] = np.mean(before), np.mean([accuracy[*state, name] for name in others])
    index = pd.MultiIndex.from_tuples(found, names=STATE_COLUMNS)
    return pd.DataFrame(list(found.values()), index=index, columns=["before", "after"])


@pytest.fixture(scope="module")
def replicates(files):
    """`expected_ood` of the observed objects, and of each bootstrap draw of the grid's tables."""
    objects = sorted(set(files[1]["object_id"]))
    draws = np.random.default_rng(5).multinomial(
        len(objects), [1 / len(objects)] * len(objects), size=30
    )
    every = [dict.fromkeys(objects, 1), *(dict(zip(objects, draw, strict=True)) for draw in draws)]
    return [expected_ood(files[1], weights) for weights in every]


def by_columns(table, keys):
    return table.set_index(keys).drop(columns="conditions")


def percentiles(values):
    return np.nanpercentile(values, 5, axis=0), np.nanpercentile(values, 95, axis=0)


def test_written_accuracies_are_pandas_counts_in_the_order_of_states(grid):
    table, rows = grid[2]["accuracy"], grid[1]
    states = sorted(
        rows[rows["alpha"].isna()][RUN_COLUMNS].drop_duplicates().itertuples(index=False, name=None)
    )
    expected = [(*state, name) for state in states for name in ("b", "val", "a", "c")]
    assert [tuple(line) for line in table[[*RUN_COLUMNS, "dataset"]].to_numpy()] == expected
    right = rows.assign(correct=rows["label"] == rows["prediction"])
    right = (
        right[rows["alpha"].isna()]
        .groupby([*RUN_COLUMNS, "dataset"])["correct"]
        .agg(["size", "sum"])
    )
    for line in table.itertuples():
        n, correct = right.loc[
            (line.model, line.method, line.target, line.size, line.seed, line.dataset)
        ]
        assert (line.n, line.correct) == (n, correct) and line.accuracy == pytest.approx(
            100 * correct / n, abs=1e-6
        )
    assert list(table) == [
        *RUN_COLUMNS,
        "dataset",
        "role",
        "n",
        "correct",
        "accuracy",
        "conditions",
    ]
    assert set(table["conditions"]) == {"protocol paper"}


def ri_by_role(accuracy):
    """RI of each fine-tuned run, by run, from accuracy.csv alone.

    It is the mean change over the run's rows with the role ood.
    """
    before = accuracy[accuracy["method"] == "pretrained"].set_index(["model", "dataset"])
    percent_before = 100 * before["correct"] / before["n"]
    counted = accuracy[(accuracy["method"] != "pretrained") & (accuracy["role"] == "ood")]
    start = [
        percent_before[model, dataset]
        for model, dataset in zip(counted["model"], counted["dataset"], strict=True)
    ]
    change = 100 * counted["correct"] / counted["n"] - start
    return change.groupby([counted[key] for key in RUN_COLUMNS]).mean()


def test_ri_follows_from_the_rows_of_accuracy_with_the_role_ood(files):
    """`c` is evaluated only, `val` in distribution, and the target `outside` is not evaluated."""
    tables = written(files[0], "roles", in_distribution=["val"])
    found, expected = ri_by_role(tables["accuracy"]), tables["ri"].set_index(RUN_COLUMNS)["ri"]
    assert len(found) == len(expected) == 2 * 10
    assert found.round(6).to_dict() == pytest.approx(expected.to_dict(), abs=1e-9)
    role = tables["accuracy"].groupby(["target", "dataset"])["role"].unique().map(list)
    for target, of_datasets in {"a": "target ood ood", "b": "ood target ood"}.items():
        assert [role[target, name] for name in "abc"] == [[word] for word in of_datasets.split()]
    for target in ("none", "outside"):
        assert all(role[target, name] == ["ood"] for name in "abc")
    assert all(
        role[target, "val"] == ["in_distribution"] for target in ("none", "a", "b", "outside")
    )


def test_a_variant_of_a_dataset_is_neither_ood_nor_in_distribution(files):
    tables = written(files[0], "variant", ood_datasets=["a", "b"], in_distribution=["val"])
    accuracy = tables["accuracy"]
    assert set(accuracy[accuracy["dataset"] == "c"]["role"]) == {"variant"}
    expected = tables["ri"].set_index(RUN_COLUMNS)["ri"].to_dict()
    assert ri_by_role(accuracy).round(6).to_dict() == pytest.approx(expected, abs=1e-9)


def test_written_ri_and_its_intervals_are_those_of_the_definitions(grid, replicates):
    table = by_columns(grid[2]["ri"], RUN_COLUMNS)
    changes = [part["after"] - part["before"] for part in replicates]
    low, high = percentiles(changes[1:])
    states = [state[:-1] for state in changes[0].index if state[-1] == -1]
    assert sorted(table.index) == sorted(states) and len(table) == 2 * 10
    for place, state in enumerate(changes[0].index):
        if state[-1] == -1:
            line = table.loc[state[:-1]]
            assert line["n"] == sum(SETS[name] for name in "abc" if name != state[2])
            numbers = (changes[0].iloc[place], low[place], high[place])
            assert tuple(line[["ri", "ci_low", "ci_high"]]) == pytest.approx(numbers, abs=1e-6)
    parts = [
        "ri_seen",
        "seen_low",
        "seen_high",
        "n_seen",
        "ri_unseen",
        "unseen_low",
        "unseen_high",
        "n_unseen",
    ]
    assert list(table) == ["n", "ri", "ci_low", "ci_high", *parts]
    assert (table["n_seen"].fillna(0) + table["n_unseen"].fillna(0) == table["n"]).all()


def seen_by(folder, rows):
    """Whether each row is of a class that the training images show, by target, size and seed.

    They show it if a class of theirs shares its outputs.
    """
    found, label = {}, {name: part["label"] for name, part in indexes_of(rows).items()}
    view = DatasetView(geometry=None, budget="all", images_per_class=None)
    columns = ["target", "size", "seed"]
    for target, size, seed in (
        rows[rows["method"] != "pretrained"][columns].drop_duplicates().to_numpy()
    ):
        whole = load_whole(
            DatasetFiles(target, folder / f"prepare/{target}/32px", pixels=False), view
        )
        trained = set(subset(whole, size, int(seed)).labels)
        outputs = {output for k in trained for output in space_of(target).indices[k]}
        flags = {
            name: [bool({*space_of(name).indices[k]} & outputs) for k in own]
            for name, own in label.items()
        }
        place = rows.groupby([*STATE_COLUMNS, "dataset"], dropna=False).cumcount()
        found[target, size, seed] = np.array(
            [flags[name][k] for name, k in zip(rows["dataset"], place, strict=True)]
        )
    return found


@pytest.mark.parametrize("which", ["seen", "unseen"])
def test_ri_of_seen_and_unseen_classes_is_that_of_their_images_alone(grid, which):
    folder, rows, made = grid
    rows = rows[rows["alpha"].isna()].reset_index(drop=True)
    table = by_columns(made["ri"], RUN_COLUMNS)
    objects = sorted(set(rows["object_id"]))
    draws = np.random.default_rng(5).multinomial(
        len(objects), [1 / len(objects)] * len(objects), size=30
    )
    every = [dict.fromkeys(objects, 1), *(dict(zip(objects, draw, strict=True)) for draw in draws)]
    empty = 0
    for (target, size, seed), seen in seen_by(folder, rows).items():
        kept = seen if which == "seen" else ~seen
        kept &= (
            (rows["target"] == target) & (rows["size"] == size) & (rows["seed"] == seed)
            | (rows["target"] == "none")
        ).to_numpy()
        kept &= (rows["dataset"] != target).to_numpy() & (rows["dataset"] != "val").to_numpy()
        changes = []
        for weights in every if kept.any() else []:
            accuracy = pd.Series(accuracies_of(rows[kept], weights)).unstack(6)
            means = accuracy.mean(axis=1, skipna=False)
            changes.append(
                {
                    state: means[state] - means[state[0], "pretrained", "none", "all", 0, -1]
                    for state in means.index
                }
            )
        for state, line in table[(table.index.get_level_values("target") == target)].iterrows():
            if state[3:5] == (size, seed):
                numbers = line[[f"ri_{which}", f"{which}_low", f"{which}_high"]]
                empty += not changes
                if not changes:
                    assert numbers.isna().all() and np.isnan(line[f"n_{which}"])
                    continue
                values = np.array([change[*state, -1] for change in changes])
                low, high = np.nanpercentile(values[1:], [5, 95])
                assert tuple(numbers) == pytest.approx((values[0], low, high), abs=1e-6)
                own = (
                    kept
                    & (rows["method"] == state[1])
                    & (rows["seed"] == state[4])
                    & (rows["model"] == state[0])
                )
                assert line[f"n_{which}"] == own.sum()
    assert empty < len(table)


def test_written_mri_and_its_parts_are_means_over_targets_and_seeds(grid, replicates):
    mri, ood = by_columns(grid[2]["mri"], ["model", "method", "size"]), grid[2]["ood"]
    shown = by_columns(ood, ["model", "method", "size", "when"])
    keys = ["model", "method", "size"]
    means = [
        part[part.index.get_level_values("alpha") == -1].groupby(level=keys).mean().sort_index()
        for part in replicates
    ]
    assert sorted(mri.index) == list(means[0].index) == sorted({key[:3] for key in shown.index})
    observed = replicates[0][replicates[0].index.get_level_values("alpha") == -1]
    means_by_target = observed.groupby(level=[*keys, "target"]).mean().sort_index()
    lows, highs = percentiles([(part["after"] - part["before"]).to_numpy() for part in means[1:]])
    ends = {
        when: percentiles([part[when].to_numpy() for part in means[1:]])
        for when in ("before", "after")
    }
    for place, (key, expected) in enumerate(means[0].iterrows()):
        change = expected["after"] - expected["before"]
        numbers = (change, lows[place], highs[place], expected["before"], expected["after"])
        assert tuple(mri.loc[key])[:5] == pytest.approx(numbers, abs=1e-6)
        seeds = observed.xs(key, level=keys).index.get_level_values("seed").nunique()
        by_target = (
            means_by_target.loc[key]["after"] - means_by_target.loc[key]["before"]
        ).to_numpy()
        assert tuple(mri.loc[key][["targets", "seeds", "target_sd"]]) == pytest.approx(
            (len(by_target), seeds, by_target.std(ddof=1)), abs=1e-6
        )
        for when, (low, high) in ends.items():
            assert tuple(shown.loc[(*key, when)]) == pytest.approx(
                (expected[when], low[place], high[place]), abs=1e-6
            )
    assert list(mri)[:5] == ["mri", "ci_low", "ci_high", "ood_before", "ood_after"]
    assert list(ood["when"]) == ["before", "after"] * len(mri)


def test_written_counts_are_those_of_all_rows(grid):
    folder, rows, _ = grid
    parts = [scored(rows[rows["dataset"].isin(names)]) for names in (["b", "val"], ["a", "c"])]
    expected = count(by_runs(*parts), indexes_of(rows))
    read = list(read_counts(folder / "plain.npz"))
    assert [{state.run.model for state in part.states} for part in read] == [{"m"}, {"n"}]
    assert [state for part in read for state in part.states] == expected.states
    for part in read:
        assert (
            part.datasets == expected.datasets == ["b", "val", "a", "c"]
            and part.objects == expected.objects == 9
        )
        own = [place for place, state in enumerate(expected.states) if state in part.states]
        for name in SETS:
            assert (part.correct[name] == expected.correct[name][own]).all() and part.correct[
                name
            ].dtype == np.uint16
            assert (part.images[name] == expected.images[name]).all()
            assert (part.object_indices[name] == expected.object_indices[name]).all()
            assert (part.labels[name] == expected.labels[name]).all()


def test_mri_for_dvc_is_the_tables_with_sizes_named(grid):
    found, table = grid[2]["json"], grid[2]["mri"]
    assert set(found) == {"m", "n"} and set(found["m"]) == {"ft", "ft, 5", "lwf"} == set(found["n"])
    for line in table.itertuples():
        assert (
            found[line.model][line.method if line.size == "all" else f"{line.method}, {line.size}"]
            == line.mri
        )


def test_states_of_curves_have_a_table_of_their_own(grid, replicates):
    table, rows = by_columns(grid[2]["curves"], STATE_COLUMNS), grid[1]
    states = [state for state in replicates[0].index if state[-1] >= 0]
    assert sorted(table.index) == sorted(states) and len(states) == 16
    after = [part["after"] for part in replicates]
    change = [part["after"] - part["before"] for part in replicates]
    everything = accuracies_of(rows, dict.fromkeys(rows["object_id"], 1))
    for state in states:
        line, (place,) = (
            table.loc[state],
            np.flatnonzero([other == state for other in replicates[0].index]),
        )
        numbers = []
        for part in (after, change):
            low, high = percentiles([one.iloc[place] for one in part[1:]])
            numbers += [part[0].iloc[place], low, high]
        columns = ["ood", "ood_low", "ood_high", "ri", "ci_low", "ci_high"]
        assert tuple(line[columns]) == pytest.approx(tuple(numbers), abs=1e-6)
        if state[2] == "outside":
            assert np.isnan(line["downstream"]) and line["n"] == 11 + 8 + 6
        else:
            assert line["downstream"] == pytest.approx(everything[(*state, state[2])], abs=1e-6)
            assert line["n"] == 11 + 6
    assert list(table) == [
        "downstream",
        "ood",
        "ood_low",
        "ood_high",
        "n",
        "ri",
        "ci_low",
        "ci_high",
    ]


def test_written_tables_are_leak_free_where_groups_are_given(grid, caplog):
    """b and c are made from the same sources.

    All of c's objects are among b's, three of b's seven among c's.
    """
    folder, rows, usual = grid
    caplog.set_level("INFO")
    made = written(
        folder, "leak-free", source_groups={"b": "g", "c": "g", "a": "other"}, replicates=10
    )

    def leaks(part, target):
        if target != "b":
            return pd.Series(False, part.index)
        return (part["dataset"] == "c") & part["object_id"].isin([f"o{i}" for i in range(7)])

    everything = dict.fromkeys(rows["object_id"], 1)
    kept = expected_ood(rows, everything, drop=leaks)  # nothing of c is left when b is the target
    for line in made["ri"].itertuples():
        expected = kept.loc[(line.model, line.method, line.target, line.size, line.seed, -1)]
        assert line.ri == pytest.approx(expected["after"] - expected["before"], abs=1e-6)
        assert line.n == {"a": 11 + 6, "b": 8, "outside": 11 + 8 + 6}[line.target]
    assert " b, 8 images" in caplog.text and " outside, 25 images" in caplog.text
    pd.testing.assert_frame_equal(
        made["accuracy"].drop(columns="role"), usual["accuracy"].drop(columns="role")
    )
    shared = made["accuracy"][made["accuracy"]["role"] == "shared"]
    assert set(zip(shared["target"], shared["dataset"], strict=True)) == {("b", "c")}


def test_a_dataset_with_an_image_that_is_identical_to_one_of_the_target_has_the_role_shared():
    counts = replace(counted(grid_rows(3)), shared={})
    choices = {"ood_datasets": ["a", "b", "c"], "in_distribution": ["val"], "source_groups": {}}
    assert roles_of(counts, "b", **choices)["c"] == "ood"
    twin = np.arange(len(counts.object_indices["c"])) == 0
    with_twin = replace(counts, shared={("b", "c"): twin})
    assert roles_of(with_twin, "b", **choices) == {
        "a": "ood",
        "b": "target",
        "c": "shared",
        "val": "in_distribution",
    }
    assert roles_of(with_twin, "a", **choices)["c"] == "ood", (
        "it is identical to none of this target"
    )


def test_leak_free_keeps_the_objects_that_the_target_lacks():
    """Of c's objects b has some: with c's accuracies over the others alone, before and after."""
    rows = grid_rows(3)
    rows.loc[rows["dataset"] == "c", "object_id"] += "x"
    shared = (rows["dataset"] == "c") & (rows["object_id"] == "o1x")
    rows.loc[shared, "object_id"] = "o1"  # two images
    counts = counted(rows)
    weights = object_weights(counts.objects, 50, 0)
    ood = ood_accuracies(
        counts, weights, ood_datasets=["a", "b", "c"], source_groups={"b": "g", "c": "g", "a": "h"}
    )

    def leaks(part, target):
        own = {"b": "c", "c": "b"}.get(target)
        return (part["dataset"] == own) & (part["object_id"] == "o1")

    objects = sorted(set(rows["object_id"]))
    for replicate in (0, 1, 2, 50):
        draw = dict(zip(objects, weights[replicate], strict=True))
        expected = expected_ood(rows, draw, drop=leaks)
        for state, pair in ood.items():
            numbers = expected.loc[plain(state.column_values())]
            found = (pair.before[replicate], pair.after[replicate])
            assert found == pytest.approx(tuple(numbers), nan_ok=True)
            assert pair.images == {"a": 11 + 6, "b": 8 + 4, "outside": 11 + 8 + 6}[state.run.target]
    parts = ood_parts(counts, ["a", "b", "c"], {"b": "g", "c": "g", "a": "h"})
    for state, pair in ood.items():
        assert parts[state].sum(axis=1) == pytest.approx([pair.before[0], pair.after[0]])


def test_what_each_object_adds_is_its_answers_over_the_datasets_images(grid):
    rows = grid[1]
    counts = counted(rows)
    objects = sorted(set(rows["object_id"]))
    right = rows.assign(
        alpha=rows["alpha"].fillna(-1), right=(rows["label"] == rows["prediction"]).astype(float)
    )
    right = right.groupby([*STATE_COLUMNS, "dataset", "object_id"])["right"].sum().to_dict()
    for state, (parts_before, parts_after) in ood_parts(counts, ["a", "b", "c"]).items():
        parts = parts_after - parts_before
        before = (state.run.model, "pretrained", "none", "all", 0, -1)
        own = plain(state.column_values())
        others = [name for name in "abc" if name != state.run.target]
        for place, name in enumerate(objects):
            expected = sum(
                100
                * (right[*own, other, name] - right[*before, other, name])
                / SETS[other]
                / len(others)
                for other in others
                if int(name[1:]) < OBJECTS[other]
            )
            assert parts[place] == pytest.approx(expected, abs=1e-9)


def test_the_same_rows_give_the_same_bytes_in_any_order_of_rows(grid):
    folder, _, _ = grid
    written(folder, "again")
    for file in folder.glob("plain*"):
        assert (folder / file.name.replace("plain", "again")).read_bytes() == file.read_bytes()
    rows, indexes = scored(grid[1]), indexes_of(grid[1])
    shuffled, usual = (
        count(by_runs(part), indexes) for part in (rows.sample(frac=1, random_state=1), rows)
    )
    assert shuffled.states == usual.states
    for dataset in SETS:
        assert (shuffled.correct[dataset] == usual.correct[dataset]).all()
        assert (shuffled.object_indices[dataset] == usual.object_indices[dataset]).all()


def test_a_gain_of_every_answer_on_a_dataset_raises_ri_by_its_share(rows):
    """All wrong answers on c made right.

    RI of a target rises by c's mistakes over the number of datasets.
    """
    counts = counted(rows)
    better = rows.copy()
    tuned = (better["dataset"] == "c") & (better["method"] == "ft")
    better.loc[tuned, "prediction"] = better.loc[tuned, "label"]
    weights = object_weights(counts.objects, 1, 0)
    before, after = (
        ri_table(ood_accuracies(counted(part), weights), 0.95).set_index(RUN_COLUMNS)["ri"]
        for part in (rows, better)
    )
    for state, change in (after - before).items():
        missed = 100 - accuracy(rows, "ft", state[2], state[4], "c") if state[1] == "ft" else 0
        assert change == pytest.approx(missed / 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.drop(index=rows.index[-1]),
        lambda rows: rows.drop(
            index=rows[(rows["dataset"] == "c") & (rows["method"] == "ft")].index
        ),
        lambda rows: pd.concat([rows, rows.iloc[-1:]]),
        lambda rows: rows.assign(row=[*rows["row"][:-1], 0]),
        lambda rows: rows.assign(row=rows["row"] - (rows["method"] == "lwf")),
    ],
    ids=[
        "an image fewer",
        "a dataset fewer",
        "an image more",
        "an image twice",
        "the same number of other images",
    ],
)
def test_any_difference_of_images_between_runs_is_refused(rows, change):
    message = (
        "the runs m/.*/0 and m/.*/[01] were scored on different images of [abc]; delete the folder"
    )
    with pytest.raises(UserError, match=message):
        count(by_runs(change(scored(rows))), indexes_of(rows))


def test_runs_on_different_images_and_their_dataset_are_named(rows):
    other = scored(rows).assign(model="k")
    other["row"] += (other["method"] == "lwf") & (other["dataset"] == "b")
    twice = {name: pd.concat([index, index]) for name, index in indexes_of(rows).items()}
    with pytest.raises(UserError, match="m/none/pretrained/all/0 and k/a/lwf/all/0 .* of b;"):
        count(by_runs(scored(rows).query("method == 'pretrained'"), other), twice)


def test_an_object_with_images_of_several_classes_counts_once_for_each():
    """Object x has two images of class 3 and one of class 1, y one of class 3.

    The index has an image more.
    """
    index = pd.DataFrame({"object_id": ["y", "x", "unused", "x", "x"], "label": [3, 3, 9, 1, 3]})
    runs = [("pretrained", "none", [0, 0, 1, 2]), ("ft", "b", [5, 0, 0, 0])]
    rows = []
    for method, target, ranks in runs:
        run = columns_of_run(method, target)
        rows.append(pd.DataFrame({**run, "dataset": "a", "row": [0, 1, 3, 4], "rank": ranks}))
    counts = count(by_runs(*rows), {"a": index})
    assert counts.objects == 2 and counts.object_indices["a"].tolist() == [0, 0, 1]
    assert counts.labels["a"].tolist() == [1, 3, 3] and counts.images["a"].tolist() == [1, 2, 1]
    assert [state.run.method for state in counts.states] == ["ft", "pretrained"]
    assert counts.correct["a"].tolist() == [[1, 2, 0], [0, 1, 1]]
    accuracy = counts.accuracy_on(
        "a", np.array([[1, 1], [2, 1]], np.uint8), ALL_INDICES, ALL_INDICES
    )
    assert accuracy.tolist() == [[75, 50], [pytest.approx(600 / 7), pytest.approx(300 / 7)]]
    ((before, after),) = ood_parts(counts).values()
    assert (after - before).tolist() == [50, -25]


def test_a_draw_without_any_object_of_a_dataset_has_no_accuracy_and_intervals_leave_it_out(rows):
    counts = counted(rows)
    places = {name: set(part) for name, part in counts.object_indices.items()}
    only_c = np.array(
        [[place not in places["a"] | places["b"] for place in range(counts.objects)]], np.uint8
    )
    assert only_c.sum() == 3
    weights = np.concatenate([np.ones_like(only_c), only_c])
    a, b, c = (counts.accuracy_on(name, weights, ALL_INDICES, ALL_INDICES) for name in DATASETS)
    assert a.shape == b.shape == c.shape == (2, 9) and np.isfinite([a[0], b[0], *c]).all()
    assert np.isnan([a[1], b[1]]).all()
    (last,) = np.flatnonzero(only_c[0])[-1:]
    single = np.eye(1, counts.objects, last, dtype=np.uint8)  # of one object with one image
    assert set(counts.accuracy_on("c", single, ALL_INDICES, ALL_INDICES)[0]) == {0, 100}
    assert estimate(np.array([9.0, 1.0, np.nan, 3.0]), 0.5) == (9, 1.5, 2.5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_intervals_are_percentiles_on_both_sides(confidence):
    values = np.random.default_rng(0).normal(size=501)
    _, low, high = estimate(np.r_[99, values], confidence)
    assert np.mean(values < low) == pytest.approx((1 - confidence) / 2, abs=0.003)
    assert np.mean(values > high) == pytest.approx((1 - confidence) / 2, abs=0.003)


def test_bootstrap_draws_are_all_objects_once_then_numpys_multinomials():
    rng = np.random.default_rng(7)
    expected = [rng.multinomial(30, np.full(30, 1 / 30)) for _ in range(5)]
    weights = object_weights(30, 5, seed=7)
    assert (weights[0] == 1).all()
    assert (
        weights.dtype == np.uint8 and weights.shape == (6, 30) and (weights[1:] == expected).all()
    )
    assert (object_weights(30, 3, seed=7) == weights[:4]).all(), (
        "more draws leave the first as they are"
    )
    assert (object_weights(30, 5, seed=8) != weights).any()


def test_states_are_in_the_order_of_their_runs_and_alphas_the_one_without_first(rows):
    pretrained = rows[rows["method"] == "pretrained"]
    alphas = [0.5, np.nan, 1.0, 0.25]
    curve = [
        pretrained.assign(method="curve", target="a", seed=seed, alpha=a)
        for seed in (10, 9)
        for a in alphas
    ]
    counts = counted(*curve, pretrained)
    run = ("m", "curve", "a", "all")
    expected = [(*run, seed, alpha) for seed in (9, 10) for alpha in (None, 0.25, 0.5, 1.0)]
    expected.append(("m", "pretrained", "none", "all", 0, None))
    assert counts.states == [state_of(*values) for values in expected]
    assert counts.states == sorted(set(counts.states))


def test_rows_of_categories_are_counted_as_rows_of_text(rows):
    """As Parquet gives them where a file holds dictionaries; not every category need occur."""
    text = ["model", "method", "target", "size", "dataset"]
    plain = scored(rows)
    parts = [
        plain[plain["dataset"] == name].astype(
            dict.fromkeys(text, rows[text].stack().astype("category").dtype)
        )
        for name in DATASETS
    ]
    assert len(parts[0]["dataset"].cat.categories) > 3
    found, expected = count(by_runs(*parts), indexes_of(rows)), counted(rows)
    assert found.states == expected.states and found.datasets == expected.datasets
    for dataset in DATASETS:
        assert (found.correct[dataset] == expected.correct[dataset]).all()


def test_counts_of_some_states_are_theirs(rows):
    counts = counted(rows)
    some = counts.select_states([7, 2])
    assert some.states == [counts.states[7], counts.states[2]] and some.objects == counts.objects
    for dataset in DATASETS:
        assert (some.correct[dataset] == counts.correct[dataset][[7, 2]]).all()
        assert (some.images[dataset] == counts.images[dataset]).all()


def test_counts_that_would_be_unpickled_are_refused(tmp_path):
    np.savez(tmp_path / "counts.npz", facts=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        list(read_counts(tmp_path / "counts.npz"))


def test_the_fit_of_every_run_is_that_of_its_manifest(grid):
    """That of a curve, which has several states, is unknown."""
    folder, rows, made = grid
    runs = rows[rows["method"] != "pretrained"][RUN_COLUMNS].drop_duplicates()
    table = made["fit"].set_index(RUN_COLUMNS)
    assert set(table.index) == set(runs.itertuples(index=False, name=None)) and set(
        table["unfinished"]
    ) == {"no"}
    for (_, method, target, *_), fit in table["fit"].items():
        assert np.isnan(fit) if method == "curve" else fit == (80 if target == "a" else 96)
    marked = written(folder, "threshold", threshold=0.95)["fit"]
    below = marked[marked["unfinished"] == "yes"]
    assert set(zip(below["method"], below["target"], strict=True)) == {
        ("ft", "a"),
        ("curve", "a"),
        ("curve", "outside"),
    }


# Identical images


def indexed(folder, photos, ids=None):
    """Indexes of datasets with the photos of each image, by dataset.

    Each image is an object and a source of its own.
    """
    for name, own in photos.items():
        place = folder / f"prepare/{name}/32px"
        place.mkdir(parents=True)
        names = [f"{name}/{row}" for row in range(len(own))]
        objects = names if ids is None else ids[name]
        index = {"object_id": objects, "source_id": names, "label": [0] * len(own), PHOTO: own}
        pd.DataFrame(index).to_parquet(place / "index.parquet")
    return [folder / f"prepare/{name}/32px/index.parquet" for name in photos]


PHOTOS = {"a": ["1", "2", "2", "3"], "b": ["4", "3", "5"], "c": ["6", "7"]}


def answers_of(photos):
    """Rows of a pretrained and a fine-tuned model, of which each is right on half of the images."""
    rng, parts = np.random.default_rng(1), []
    for method, target in (("pretrained", "none"), ("ft", "a")):
        run = columns_of_run(method, target)
        for name, own in photos.items():
            answers = {
                "dataset": name,
                "row": range(len(own)),
                "rank": rng.integers(0, 2, len(own)),
            }
            parts.append(pd.DataFrame({**run, **answers}))
    return pd.concat(parts, ignore_index=True)


def test_identical_images_of_any_datasets_are_one_object(tmp_path):
    """Given identical images under several ids, all counts are those of images with one id."""
    joined = {"a": ["a/0", "a/1", "a/1", "a/3"], "b": ["b/0", "a/3", "b/2"], "c": ["c/0", "c/1"]}
    found = read_objects(indexed(tmp_path / "photos", PHOTOS))
    assert {name: own["object_id"].tolist() for name, own in found.items()} == joined
    declared = {name: [f"{name}{row}" for row in range(len(own))] for name, own in PHOTOS.items()}
    expected = read_objects(indexed(tmp_path / "declared", declared, joined))
    rows = answers_of(PHOTOS)
    one, other = (count(by_runs(rows), indexes) for indexes in (found, expected))
    assert one.objects == other.objects == 7
    for part in ("object_indices", "images", "correct"):
        for name in PHOTOS:
            assert (getattr(one, part)[name] == getattr(other, part)[name]).all()


def test_images_that_differ_have_the_objects_that_their_layout_gave(tmp_path):
    photos = {name: [f"{name}{row}" for row in range(len(own))] for name, own in PHOTOS.items()}
    paths = indexed(tmp_path, photos)
    found, declared = read_objects(paths), read_indexes(paths)
    assert all(found[name].equals(declared[name]) for name in photos)


def test_leak_free_leaves_out_an_identical_image_of_a_dataset_of_other_sources(tmp_path):
    """An image of b is identical to one of the target a.

    RI is over the other images of b and c.
    """
    paths, rows = indexed(tmp_path, PHOTOS), answers_of(PHOTOS)
    counts = count(by_runs(rows), read_objects(paths, {}))
    write_counts(counts, tmp_path / "counts.npz")
    (stored,) = read_counts(tmp_path / "counts.npz")
    right = rows.assign(right=100.0 * (rows["rank"] == 0)).set_index(["method", "dataset", "row"])[
        "right"
    ]
    change = right["ft"] - right["pretrained"]
    for counted in (counts, stored):
        found = ood_accuracies(counted, object_weights(counted.objects, 5, 0), source_groups={})
        (pair,) = found.values()
        assert pair.images == 4
        assert pair.change[0] == pytest.approx(
            np.mean([change["b"][[0, 2]].mean(), change["c"].mean()])
        )
        (whole,) = ood_accuracies(counted, object_weights(counted.objects, 5, 0)).values()
        assert whole.images == 5, "without leak_free it counts"


def test_leak_free_keeps_other_images_of_the_object_of_an_identical_one(tmp_path):
    """b has an image of a and, as another drawing, the object of that image; the latter counts."""
    photos = {"a": ["1", "2"], "b": ["1", "3"], "c": ["4"]}
    ids = {"a": ["o0", "o1"], "b": ["o5", "o0"], "c": ["o0"]}
    indexes = read_objects(indexed(tmp_path, photos, ids), {})
    counts = count(by_runs(answers_of(photos)), indexes)
    (pair,) = ood_accuracies(
        counts, object_weights(counts.objects, 5, 0), source_groups={}
    ).values()
    assert pair.images == 1 + 1 and counts.objects == 2


def test_equal_source_ids_of_datasets_without_a_common_group_are_not_shared(tmp_path):
    photos = {"a": ["1", "2"], "b": ["3", "4"]}
    paths = indexed(tmp_path, photos)
    for path in paths:
        pd.read_parquet(path).assign(source_id=["0", "1"]).to_parquet(path)
    counts = count(by_runs(answers_of(photos)), read_objects(paths, {}))
    assert counts.shared == {}
    assert set(
        count(by_runs(answers_of(photos)), read_objects(paths, {"a": "g", "b": "g"})).shared
    ) == {("a", "b")}


def test_an_index_of_an_earlier_version_is_counted_as_before(tmp_path, caplog):
    paths, rows = indexed(tmp_path, PHOTOS), answers_of(PHOTOS)
    for path in paths:
        pd.read_parquet(path).drop(columns=PHOTO).to_parquet(path)
    found = count(by_runs(rows), read_objects(paths, {}))
    assert found.objects == 9 and found.shared == {}
    assert caplog.text.count("snakemake --forcerun prepare") == 3


def test_the_table_of_identical_images_has_those_within_a_dataset_and_of_others(tmp_path):
    """Pairs within a, of a and b, and of b and c with other classes count in their own columns."""
    photos = {"a": ["1", "1", "2", "3"], "b": ["2", "4", "5"], "c": ["5", "6"], "old": ["7"]}
    paths = indexed(tmp_path, photos)
    old = pd.read_parquet(paths[3]).drop(columns=PHOTO)
    old.to_parquet(paths[3])
    pd.read_parquet(paths[2]).assign(label=[1, 1]).to_parquet(paths[2])
    classes = [path.with_name("classes.json") for path in paths]
    for path in classes:
        write_json(path, LabelSpace(("x", "y"), ((0,), (1,)), ("x", "y")).to_json())
    labels = {"a": "A", "b": "B", "c": "C", "old": "Old"}
    table = identical_table(labels, paths, classes).set_index("dataset")
    assert table.loc["a", ["identical", "shared", "shared_with", "other_class"]].tolist() == [
        2,
        1,
        "B 1",
        0,
    ]
    assert table.loc["b", ["identical", "shared", "shared_with", "other_class"]].tolist() == [
        0,
        2,
        "A 1, C 1",
        1,
    ]
    assert table.loc["c", ["identical", "shared", "shared_with", "other_class"]].tolist() == [
        0,
        1,
        "B 1",
        1,
    ]
    assert table.loc["old", ["identical", "shared", "other_class"]].isna().all()
