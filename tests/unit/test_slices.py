"""Accuracy by slices against pandas, from rows made up, and mCE against a plain sum."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rib.analyses.slices.tables import mean_corruption_errors, slice_tables
from rib.base.errors import UserError
from rib.schema.run import PRETRAINED, RUN_COLUMNS, Run
from rib.statistics.counts import RowFiles
from tiny.tables.tables import write

RUNS = [
    Run("m", "none", "pretrained", "all", 0),
    Run("m", "a", "ft", "all", 0),
    Run("k", "none", "pretrained", "all", 0),
    Run("k", "a", "ft", "all", 0),
]
# Images in the index by dataset, of which every fifth is not scored. `plain` has no corruptions.
IMAGES = {"a": 30, "c": 40, "plain": 10}
EVALUATION_GROUPS = (["a", "plain"], ["c"])
TABLES = ("accuracy_by_slice", "corruptions", "mce")


@dataclass(frozen=True)
class EvaluatedGrid:
    """Files of the runs' rows, of the datasets' indexes, and all rows joined with the indexes."""

    rows: list[Path]
    indexes: list[Path]
    joined: pd.DataFrame  # also with the columns of a run


def random_index(dataset, rng):
    """The index of a dataset, with the columns by which it can be sliced."""
    images = IMAGES[dataset]
    columns = {
        "row": range(images),
        "label": [0] * images,
        "object_id": [str(number) for number in range(images)],
    }
    if dataset != "plain":
        columns["severity"] = rng.integers(1, 4, images)
        corruptions = pa.array(rng.choice(["snow", "fog"], images))
        columns["corruption"] = corruptions.dictionary_encode()
    if dataset == "c":
        columns["time"] = ["day"] * images
    return pa.table(columns)


def write_index(folder, dataset, index):
    """Write an index where a prepare job does; gives its path."""
    path = folder / f"prepare/{dataset}/32px/index.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(index, path)
    return path


def random_rows(method, dataset, rng):
    """Rows of the scored images of a dataset, of which about half are right."""
    scored_images = np.flatnonzero(np.arange(IMAGES[dataset]) % 5)
    ranks = rng.integers(0, 2, len(scored_images))
    columns = {"method": method, "dataset": dataset, "row": scored_images, "rank": ranks}
    return pd.DataFrame(columns)


@pytest.fixture
def grid(tmp_path):
    """Two models, pretrained and fine-tuned on `a`, evaluated on three datasets."""
    rng = np.random.default_rng(0)
    indexes = {
        dataset: write_index(tmp_path, dataset, random_index(dataset, rng)) for dataset in IMAGES
    }
    row_files = []
    joined = []
    for run in RUNS:
        for group in EVALUATION_GROUPS:
            rows_of_datasets = []
            for dataset in group:
                rows = random_rows(run.method, dataset, rng)
                rows_of_datasets.append(rows)
                rows_with_index = rows.merge(pd.read_parquet(indexes[dataset]), on="row")
                joined.append(rows_with_index.assign(model=run.model, target=run.target))
            first_dataset, *_ = group
            path = tmp_path / str(run) / f"{first_dataset}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.concat(rows_of_datasets).to_parquet(path)
            row_files.append(path)
    return EvaluatedGrid(row_files, list(indexes.values()), pd.concat(joined))


def write_slice_tables(folder, files, columns=(), relative_errors=None, comparable=None):
    """The tables as their job writes them, by name; they are files of the folder.

    Args:
        files: with rows and indexes.
        columns: by which datasets are sliced.
        relative_errors: AlexNet's errors by dataset and corruption.
        comparable: by dataset, the models whose mCE can be compared with published ones.
    """
    outputs = {name: folder / f"{name}.csv" for name in TABLES}
    write(
        slice_tables,
        files=RowFiles(rows=files.rows, indexes=files.indexes),
        columns=columns,
        relative_errors=relative_errors or {},
        comparable=comparable or {},
        conditions="protocol paper",
        outputs=outputs,
    )
    return {name: pd.read_csv(path) for name, path in outputs.items()}


def percent_right(rows):
    """Accuracy of rows in percent."""
    return 100 * (rows["rank"] == 0).mean()


# Accuracies by slice


def test_accuracies_of_slices_are_pandas(grid, tmp_path):
    columns = ["severity", "time", "corruption"]
    table = write_slice_tables(tmp_path, grid, columns)["accuracy_by_slice"]
    assert set(table["method"]) == {"ft"}
    for line in table.itertuples():
        is_of_line = (grid.joined["model"] == line.model) & (grid.joined["dataset"] == line.dataset)
        rows = grid.joined[is_of_line]
        # where datasets without the column are joined, pandas has severities as floats
        value_of_row = rows[line.slice].astype(str).str.removesuffix(".0")
        rows_of_slice = rows[value_of_row == line.value]
        rows_before = rows_of_slice[rows_of_slice["method"] == PRETRAINED]
        rows_after = rows_of_slice[rows_of_slice["method"] == "ft"]
        before = percent_right(rows_before)
        after = percent_right(rows_after)
        assert line.n == len(rows_before) == len(rows_after)
        assert line.before == pytest.approx(before, abs=1e-5)
        assert line.after == pytest.approx(after, abs=1e-5)
        assert line.change == pytest.approx(after - before, abs=2e-6)


def test_each_model_has_a_line_for_every_value_that_occurs_in_a_dataset(grid, tmp_path):
    columns = ["severity", "time", "corruption"]
    table = write_slice_tables(tmp_path, grid, columns)["accuracy_by_slice"]
    values_of_dataset = {
        "a": ["1", "2", "3", "fog", "snow"],
        "c": ["1", "2", "3", "day", "fog", "snow"],
    }
    for model in ("m", "k"):
        lines_of_model = table[table["model"] == model]
        assert set(lines_of_model["dataset"]) == {"a", "c"}
        for dataset, values in values_of_dataset.items():
            lines = lines_of_model[lines_of_model["dataset"] == dataset]
            assert sorted(lines["value"].astype(str)) == values


@pytest.mark.parametrize("slices", [(), ("time",)])
def test_corruptions_are_split_by_both_columns_whatever_slices_are_chosen(grid, tmp_path, slices):
    table = write_slice_tables(tmp_path, grid, slices)["corruptions"]

    with_corruptions = grid.joined[grid.joined["dataset"] != "plain"]
    rows = with_corruptions.assign(
        percent=100.0 * (with_corruptions["rank"] == 0),
        corruption=with_corruptions["corruption"].astype(str),
    )
    keys = ["model", "dataset", "corruption", "severity"]
    expected = rows.pivot_table(
        index=keys, columns="method", values="percent", aggfunc=["size", "mean"]
    )
    lines = table.set_index(keys).sort_index()
    assert len(lines) > 20
    assert lines.index.tolist() == expected.index.tolist()
    assert lines["n"].tolist() == expected["size", "ft"].tolist()
    for column, method in {"before": PRETRAINED, "after": "ft"}.items():
        assert lines[column].tolist() == pytest.approx(expected["mean", method].tolist(), abs=1e-5)
    change = lines["after"] - lines["before"]
    assert lines["change"].tolist() == pytest.approx(change.tolist(), abs=2e-6)


def test_without_a_choice_all_columns_that_there_are_count(grid, tmp_path):
    table = write_slice_tables(tmp_path, grid)["accuracy_by_slice"]
    assert set(table["slice"]) == {"corruption", "severity", "time"}


def test_without_a_choice_datasets_without_columns_have_no_slices(grid, tmp_path):
    (index_of_plain,) = [path for path in grid.indexes if "plain" in path.parts]
    only_plain = RowFiles(rows=grid.rows, indexes=[index_of_plain])
    assert write_slice_tables(tmp_path, only_plain)["accuracy_by_slice"].empty
    with pytest.raises(UserError, match="plain .*'severity'"):
        write_slice_tables(tmp_path, only_plain, ["severity"])


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (["severity", "colour"], "a, c, plain .*'colour'; .* corruption, severity, time"),
        (["label"], "'label'"),
    ],
)
def test_a_column_that_no_index_has_is_refused(grid, tmp_path, slices, message):
    with pytest.raises(UserError, match=message):
        write_slice_tables(tmp_path, grid, slices)
    assert not (tmp_path / "accuracy_by_slice.csv").exists()


def test_runs_on_different_images_are_refused(grid, tmp_path):
    rows_of_last_run = grid.rows[-1]
    without_first_image = pd.read_parquet(rows_of_last_run).iloc[1:]
    without_first_image.to_parquet(rows_of_last_run)
    with pytest.raises(UserError, match="k/none/pretrained/all/0 and k/a/ft/all/0 .* of c;"):
        write_slice_tables(tmp_path, grid, ["severity"])


# Mean corruption errors

ALEXNET = {"fog": 80.0, "snow": 50.0}
SEVERITIES = (1, 2, 3, 4, 5)


def accuracies(corruptions=("fog", "snow"), severities=SEVERITIES, datasets=("c", "other")):
    """A table of two runs with accuracies drawn at random."""
    rng = np.random.default_rng(1)
    runs = [Run("m", "a", "ft", "all", 0), Run("k", "a", "lwf", "0.5", 1)]
    lines = []
    for run in runs:
        for dataset in datasets:
            for corruption in corruptions:
                for severity in severities:
                    before, after = rng.uniform(0, 100, 2)
                    line = {
                        **dict(zip(RUN_COLUMNS, run.values(RUN_COLUMNS), strict=True)),
                        "dataset": dataset,
                        "corruption": corruption,
                        "severity": severity,
                        "before": before,
                        "after": after,
                    }
                    lines.append(line)
    return pd.DataFrame(lines)


def mce_by_hand(table, column):
    """mCE of accuracies on a dataset, by sums over its lines."""
    ratios = []
    for corruption, alexnets_error in ALEXNET.items():
        sum_of_errors = 0
        for line in table.to_dict("records"):
            if line["corruption"] == corruption:
                sum_of_errors += 100 - line[column]
        ratios.append(sum_of_errors / (len(SEVERITIES) * alexnets_error))
    return 100 * sum(ratios) / len(ratios)


def test_mce_is_the_mean_over_corruptions_of_sums_of_errors_over_alexnets():
    table = accuracies()
    in_another_order = table.sample(frac=1, random_state=0)
    mce = mean_corruption_errors(in_another_order, {"c": ALEXNET}).set_index("model")
    assert sorted(mce.index) == ["k", "m"]
    assert set(mce["dataset"]) == {"c"}
    for model in ("m", "k"):
        on_c = table[(table["model"] == model) & (table["dataset"] == "c")]
        before = mce_by_hand(on_c, "before")
        after = mce_by_hand(on_c, "after")
        assert mce.loc[model, "before"] == pytest.approx(before)
        assert mce.loc[model, "after"] == pytest.approx(after)
        assert mce.loc[model, "change"] == pytest.approx(after - before)


def test_mce_of_alexnet_itself_is_100_and_of_a_perfect_model_0():
    table = accuracies(datasets=["c"])
    accuracies_of_alexnet = 100 - table["corruption"].map(ALEXNET)
    table = table.assign(before=accuracies_of_alexnet, after=100.0)
    mce = mean_corruption_errors(table, {"c": ALEXNET})
    assert mce["before"].tolist() == pytest.approx([100, 100])
    assert mce["after"].tolist() == [0, 0]


def test_corruptions_without_an_error_of_alexnet_do_not_count_in_mce():
    """As the extra corruptions of ImageNet-C, which may also have fewer severities."""
    counted = accuracies()
    extra = accuracies(["frost"], severities=[1, 2])
    with_extra = pd.concat([extra, counted], ignore_index=True)
    pd.testing.assert_frame_equal(
        mean_corruption_errors(with_extra, {"c": ALEXNET}),
        mean_corruption_errors(counted, {"c": ALEXNET}),
    )


def without_the_severest_snow():
    """Accuracies at all severities of fog, and of snow at all but 5."""
    table = accuracies()
    return table[(table["corruption"] == "fog") | (table["severity"] < 5)]


@pytest.mark.parametrize(
    ("table", "missing"),
    [
        (without_the_severest_snow(), "snow (severity 5)"),
        (accuracies(datasets=["other"]), "fog, snow"),
    ],
)
def test_without_all_corruptions_of_the_file_there_is_no_mce_and_the_log_says_why(
    table, missing, caplog
):
    mce = mean_corruption_errors(table, {"c": ALEXNET})
    assert mce.empty
    (warning,) = caplog.messages
    assert missing in warning


def test_a_dataset_without_all_corruptions_takes_no_mce_from_another():
    table = accuracies()
    other_lacks_snow = table[(table["dataset"] == "c") | (table["corruption"] == "fog")]
    mce = mean_corruption_errors(other_lacks_snow, {"c": ALEXNET, "other": ALEXNET})
    pd.testing.assert_frame_equal(mce, mean_corruption_errors(table, {"c": ALEXNET}))


def test_datasets_without_corruptions_have_no_mce(grid, tmp_path):
    tables = write_slice_tables(tmp_path, grid, relative_errors={"a": ALEXNET})
    assert tables["mce"].empty


def test_only_models_that_saw_whole_photos_have_an_mce_like_published_ones(tmp_path):
    # given an image of each corruption and severity, and two models that are always wrong
    images = len(ALEXNET) * len(SEVERITIES)
    columns = {
        "row": range(images),
        "corruption": ["fog", "snow"] * len(SEVERITIES),
        "severity": [*SEVERITIES] * len(ALEXNET),
        "label": [0] * images,
        "object_id": ["a"] * images,
    }
    index = write_index(tmp_path, "c", pa.table(columns))
    row_files = []
    for run in RUNS:
        path = tmp_path / str(run) / "c.parquet"
        path.parent.mkdir(parents=True)
        columns = {"method": run.method, "dataset": "c", "row": range(images), "rank": 1}
        pd.DataFrame(columns).to_parquet(path)
        row_files.append(path)
    # when `m` alone is comparable on this dataset
    mce = write_slice_tables(
        tmp_path,
        RowFiles(rows=row_files, indexes=[index]),
        relative_errors={"c": ALEXNET},
        comparable={"c": ["m"], "other": ["k"]},
    )["mce"]
    # then
    comparable_of_model = dict(zip(mce["model"], mce["comparable"], strict=True))
    assert comparable_of_model == {"m": "yes", "k": "no"}


def test_the_catalogue_states_alexnets_error_for_each_corruption_that_it_needs(catalog):
    with_errors = [entry for entry in catalog.datasets.values() if entry.relative_errors]
    assert with_errors
    for entry in with_errors:
        lines = catalog.table(entry.relative_errors, ("corruption", "error", "source"), ["error"])
        assert {line["corruption"] for line in lines} == set(entry.settings["corruptions"])
        for line in lines:
            assert 0 < float(line["error"]) < 100
            assert line["source"]
        assert entry.settings["severities"] == [*SEVERITIES]
