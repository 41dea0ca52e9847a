"""Accuracy by slices against pandas, from rows made up, and mCE against a plain sum."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rib.analyses.slices.settings import SliceSettings
from rib.analyses.slices.tables import mean_corruption_errors, slice_tables
from rib.analysis.counts import RowFiles
from rib.base.errors import UserError
from rib.config.run import RUN_COLUMNS
from tiny.tables import write

RUNS = [
    ("m", "none", "pretrained"),
    ("m", "a", "ft"),
    ("k", "none", "pretrained"),
    ("k", "a", "ft"),
]
SETS = {"a": 30, "c": 40, "plain": 10}  # images in the index, of which every fifth is not scored


@pytest.fixture
def grid(tmp_path):
    """Files of rows and indexes, and all rows with what the indexes say of them."""
    rng = np.random.default_rng(0)
    indexes, rows, parts = {}, [], []
    for name, n in SETS.items():
        table = {"row": range(n), "label": [0] * n, "object_id": [str(i) for i in range(n)]}
        if name != "plain":
            table["severity"] = rng.integers(1, 4, n)
            table["corruption"] = pa.array(rng.choice(["snow", "fog"], n)).dictionary_encode()
        if name == "c":
            table["time"] = ["day"] * n
        path = tmp_path / f"prepare/{name}/32px/index.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(table), path)
        indexes[name] = path
    for model, target, method in RUNS:
        for group in (["a", "plain"], ["c"]):
            place = tmp_path / f"{model}/{target}/{method}/all/0/{group[0]}.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            scored = []
            for name in group:
                row = np.flatnonzero(np.arange(SETS[name]) % 5)
                scored.append(
                    pd.DataFrame(
                        {"dataset": name, "row": row, "rank": rng.integers(0, 2, len(row))}
                    )
                )
                index = pd.read_parquet(indexes[name])
                run = {"model": model, "target": target, "method": method}
                parts.append(scored[-1].merge(index, on="row").assign(**run))
            pd.concat(scored).to_parquet(place)
            rows.append(place)
    return rows, list(indexes.values()), pd.concat(parts)


def written(grid, tmp_path, *slices, table="accuracy_by_slice", errors=None, comparable=None):
    rows, indexes, *_ = grid
    tables = {
        name: tmp_path / f"{name}.csv" for name in ("accuracy_by_slice", "corruptions", "mce")
    }
    settings = SliceSettings(
        columns=list(slices),
        relative_errors=errors or {},
        comparable=comparable or {},
        conditions="protocol paper",
        code="",
    )
    write(
        slice_tables,
        files=RowFiles(rows=rows, indexes=indexes),
        settings=settings,
        conditions=settings.conditions,
        outputs=tables,
    )
    return pd.read_csv(tables[table])


def test_accuracies_of_slices_are_pandas(grid, tmp_path):
    table = written(grid, tmp_path, "severity", "time", "corruption")
    keys = ["model", "method", "target", "size", "seed", "dataset", "slice", "value"]
    assert list(table) == [*keys, "n", "before", "after", "change", "conditions"]
    values = {"a": [*"123", "fog", "snow"], "c": [*"123", "day", "fog", "snow"]}
    for (model, dataset), part in table.groupby(["model", "dataset"]):
        assert sorted(part["value"].astype(str)) == values[dataset] and set(part["method"]) == {
            "ft"
        }
        for line in part.itertuples():
            own = grid[2][(grid[2]["model"] == model) & (grid[2]["dataset"] == dataset)]
            own = own[own[line.slice].astype(str).str.removesuffix(".0") == line.value]
            own = own.assign(right=100 * (own["rank"] == 0))
            before, after = (
                own[own["method"] == method]["right"] for method in ("pretrained", "ft")
            )
            assert line.n == len(before) == len(after)
            assert (line.before, line.after) == pytest.approx(
                (before.mean(), after.mean()), abs=1e-5
            )
            assert line.change == pytest.approx(after.mean() - before.mean(), abs=2e-6)


@pytest.mark.parametrize("slices", [(), ("severity",), ("time",)])
def test_corruptions_are_split_by_both_columns_whatever_slices_are_chosen(grid, tmp_path, slices):
    table = written(grid, tmp_path, *slices, table="corruptions")
    assert list(table)[len(RUN_COLUMNS) :] == [
        "dataset",
        "corruption",
        "severity",
        *list(table)[-5:],
    ]
    assert list(table)[-5:] == ["n", "before", "after", "change", "conditions"]
    every = grid[2][grid[2]["dataset"] != "plain"].assign(
        right=lambda rows: 100.0 * (rows["rank"] == 0)
    )
    every["corruption"] = every["corruption"].astype(str)
    keys = ["model", "dataset", "corruption", "severity"]
    expected = every.pivot_table(
        index=keys, columns="method", values="right", aggfunc=["size", "mean"]
    )
    table = table.set_index(keys).sort_index()
    assert table.index.tolist() == expected.index.tolist() and len(table) > 20
    assert table["n"].tolist() == expected["size", "ft"].tolist()
    for column, method in (("before", "pretrained"), ("after", "ft")):
        assert table[column].tolist() == pytest.approx(expected["mean", method].tolist(), abs=1e-5)
    assert table["change"].tolist() == pytest.approx(
        (table["after"] - table["before"]).tolist(), abs=2e-6
    )


ALEXNET = {"fog": 80.0, "snow": 50.0}


def accuracies(corruptions=("fog", "snow"), severities=(1, 2, 3, 4, 5), datasets=("c", "other")):
    """A table of two runs with accuracies drawn at random."""
    rng = np.random.default_rng(1)
    runs = [("m", "ft", "a", "all", 0), ("k", "lwf", "a", "0.5", 1)]
    lines = [
        (*run, dataset, corruption, severity, *rng.uniform(0, 100, 2))
        for run in runs
        for dataset in datasets
        for corruption in corruptions
        for severity in severities
    ]
    kinds = ["dataset", "corruption", "severity", "before", "after"]
    return pd.DataFrame(lines, columns=["model", "method", "target", "size", "seed", *kinds])


def test_mce_is_the_mean_over_corruptions_of_sums_of_errors_over_alexnets():
    table = accuracies()
    # in another order of rows the result is the same
    found = mean_corruption_errors(table.sample(frac=1, random_state=0), {"c": ALEXNET}).set_index(
        "model"
    )
    assert set(found["dataset"]) == {"c"} and len(found) == 2
    for model in ("m", "k"):
        expected = {}
        for column in ("before", "after"):
            ratios = []
            for corruption, alexnet in ALEXNET.items():
                errors = 0
                for line in table.to_dict("records"):
                    if (line["model"], line["dataset"], line["corruption"]) == (
                        model,
                        "c",
                        corruption,
                    ):
                        errors += 100 - line[column]
                ratios.append(errors / (5 * alexnet))
            expected[column] = 100 * sum(ratios) / len(ratios)
            assert found.loc[model, column] == pytest.approx(expected[column])
        assert found.loc[model, "change"] == pytest.approx(expected["after"] - expected["before"])


def test_mce_of_alexnet_itself_is_100_and_of_a_perfect_model_0():
    table = accuracies(datasets=["c"])
    table["before"], table["after"] = 100 - table["corruption"].map(ALEXNET), 100.0
    found = mean_corruption_errors(table, {"c": ALEXNET})
    assert found["before"].tolist() == pytest.approx([100, 100]) and found["after"].tolist() == [
        0,
        0,
    ]


def test_corruptions_without_an_error_of_alexnet_do_not_count_in_mce():
    """As the extra corruptions of ImageNet-C, which may also have fewer severities."""
    counted = accuracies()
    extra = accuracies(["frost"], severities=[1, 2])
    found = mean_corruption_errors(pd.concat([extra, counted], ignore_index=True), {"c": ALEXNET})
    pd.testing.assert_frame_equal(found, mean_corruption_errors(counted, {"c": ALEXNET}))


@pytest.mark.parametrize(
    ("table", "missing"),
    [
        (accuracies(["fog"]), "missing are snow."),
        (
            accuracies(severities=[1, 3, 5]),
            "missing are fog (severity 2, 4), snow (severity 2, 4).",
        ),
        (
            accuracies()[lambda t: (t["corruption"] == "fog") | (t["severity"] < 5)],
            "missing are snow (severity 5).",
        ),
        (accuracies(datasets=["other"]), "missing are fog, snow."),
    ],
)
def test_without_all_corruptions_of_the_file_there_is_no_mce_and_the_log_says_why(
    table, missing, caplog
):
    found = mean_corruption_errors(table, {"c": ALEXNET})
    assert found.empty and list(found)[-4:] == ["dataset", "before", "after", "change"]
    (line,) = caplog.messages
    assert line.startswith("c has no mCE") and missing in line


def test_a_dataset_without_all_corruptions_takes_no_mce_from_another():
    table = accuracies()
    lacking = table[(table["dataset"] == "c") | (table["corruption"] == "fog")]
    found = mean_corruption_errors(lacking, {"c": ALEXNET, "other": ALEXNET})
    pd.testing.assert_frame_equal(found, mean_corruption_errors(table, {"c": ALEXNET}))


def test_datasets_without_corruptions_have_no_mce(grid, tmp_path):
    assert written(grid, tmp_path, table="mce", errors={"a": ALEXNET}).empty


def test_only_models_that_saw_whole_photos_have_an_mce_like_published_ones(tmp_path):
    folder = tmp_path / "prepare/c/32px"
    folder.mkdir(parents=True)
    index = {"row": range(10), "corruption": ["fog", "snow"] * 5, "severity": [1, 2, 3, 4, 5] * 2}
    pq.write_table(
        pa.table(index | {"label": [0] * 10, "object_id": ["a"] * 10}), folder / "index.parquet"
    )
    files = []
    for model, target, method in RUNS:
        path = tmp_path / f"{model}/{target}/{method}/all/0/c.parquet"
        path.parent.mkdir(parents=True)
        pd.DataFrame({"dataset": "c", "row": range(10), "rank": 1}).to_parquet(path)
        files.append(path)
    table = written(
        (files, [folder / "index.parquet"]),
        tmp_path,
        table="mce",
        errors={"c": ALEXNET},
        comparable={"c": ["m"], "other": ["k"]},
    )
    assert dict(zip(table["model"], table["comparable"], strict=True)) == {"m": "yes", "k": "no"}


def test_the_catalogue_states_alexnets_error_for_each_corruption_that_it_needs(catalog):
    for entry in catalog.datasets.values():
        if entry.relative_errors:
            rows = catalog.table(
                entry.relative_errors, ("corruption", "error", "source"), ["error"]
            )
            assert {row["corruption"] for row in rows} == set(entry.settings["corruptions"])
            assert all(0 < float(row["error"]) < 100 and row["source"] for row in rows)
            assert entry.settings["severities"] == [1, 2, 3, 4, 5]


def test_without_a_choice_all_columns_that_there_are_count(grid, tmp_path):
    assert set(written(grid, tmp_path)["slice"]) == {"corruption", "severity", "time"}
    plain = [path for path in grid[1] if "plain" in path.parts]
    assert written((grid[0], plain), tmp_path).empty
    with pytest.raises(UserError, match="plain have no column 'severity'; no layout gives slices"):
        written((grid[0], plain), tmp_path, "severity")


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (
            ["severity", "colour"],
            "the indexes of a, c, plain have no column 'colour'; .* corruption, severity, time",
        ),
        (["label"], "no column 'label'"),
    ],
)
def test_a_column_that_no_index_has_is_refused(grid, tmp_path, slices, message):
    with pytest.raises(UserError, match=message):
        written(grid, tmp_path, *slices)
    assert not (tmp_path / "accuracy_by_slice.csv").exists()


def test_runs_on_different_images_are_refused(grid, tmp_path):
    path = grid[0][-1]
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    message = (
        "k/none/pretrained/all/0 and k/a/ft/all/0 were scored on different images of c; delete"
    )
    with pytest.raises(UserError, match=message):
        written(grid, tmp_path, "severity")
