"""Datasets that are evaluated in parts: which images a part has, and what it takes to be one."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rib
from rib.base.errors import UserError
from rib.base.files import sha256, write_json
from rib.data.dataset import PreparedDataset
from rib.data.parts import batches_with_part, check_part, images_of_part
from rib.schema.part import DatasetPart
from rib.statistics.counts import RowFiles, count, read_objects, read_rows_of
from rib.statistics.sample_rows import parts_together, read_rows
from tiny.models.training import SPACE

NOISE = DatasetPart(column="corruption", levels=["shot", "gauss"])
WEATHER = DatasetPart(column="corruption", levels=["fog", "snow"])
CORRUPTIONS = ["shot", "fog", "gauss", "gauss", "snow", "shot"]
WHERE = "datasets.yaml, c, parts"
FINE_TUNED = {"method": "ft", "alpha": None, "coefficients": {"ft": 1.0}}  # as a manifest names it


@pytest.fixture
def index(tmp_path):
    """An index of six images with a corruption and a severity."""
    return write_index(tmp_path / "index.parquet", CORRUPTIONS)


def write_index(path, corruptions):
    """Write an index of images with these corruptions, and severities from 1 on; gives its path."""
    number_of_images = len(corruptions)
    names = [str(row) for row in range(number_of_images)]
    table = pa.table(
        {
            "row": pa.array(range(number_of_images), pa.int32()),
            "image_id": names,
            "label": pa.array([0] * number_of_images, pa.int32()),
            "object_id": names,
            "photo_sha256": names,
            "corruption": pa.array(corruptions).dictionary_encode(),  # as prepared datasets have it
            "severity": pa.array(range(1, number_of_images + 1), pa.int32()),
        }
    )
    pq.write_table(table, path)
    return path


# What a part is.


def test_a_part_has_the_images_with_its_levels(index):
    assert images_of_part(index, NOISE).tolist() == [True, False, True, True, False, True]
    assert images_of_part(index, WEATHER).tolist() == [False, True, False, False, True, False]


def test_levels_may_be_numbers(index):
    light = DatasetPart(column="severity", levels=[1, 2])
    check_part(index, light, (3, 4, 5, 6), WHERE)
    assert images_of_part(index, light).tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    "part, reason",
    [
        ({"column": "weather"}, "'weather'; choose from corruption, severity"),
        ({"column": "label"}, "'label'; choose from"),
        ({"levels": ["shot", "gauss", "frost"]}, "'frost'; .* 'fog', 'gauss', 'shot', 'snow'"),
    ],
)
def test_a_part_that_does_not_exist_is_told(index, part, reason):
    """The part is that of the noise, with something changed."""
    # given
    check_part(index, NOISE, WEATHER.levels, WHERE)
    missing_part = NOISE.model_copy(update=part)
    # then
    with pytest.raises(UserError, match=f"^{WHERE}: .*{reason}"):
        check_part(index, missing_part, WEATHER.levels, WHERE)


def test_images_in_no_part_are_told(index):
    with pytest.raises(UserError, match=f"^{WHERE}: .*'fog'"):
        check_part(index, NOISE, ("snow",), WHERE)


def test_a_dataset_without_slices_can_have_no_parts(tmp_path):
    index = tmp_path / "index.parquet"
    pq.write_table(pa.table({"row": [0], "label": [0]}), index)
    with pytest.raises(UserError, match="'corruption'; remove parts"):
        check_part(index, NOISE, WEATHER.levels, WHERE)


# Which batches it takes.


def dataset_of(rows):
    """A dataset of which these images of its index are used."""
    index = pa.table({"row": pa.array(rows, pa.int32())})
    labels = np.zeros(len(rows), np.int64)
    return PreparedDataset("c", None, labels, np.array(rows), index, SPACE)


def test_a_part_takes_the_whole_batches_that_have_an_image_of_it():
    # given seven of the twelve images of an index, in batches of two
    dataset = dataset_of([0, 2, 3, 5, 8, 9, 11])
    is_in_part = np.zeros(12, bool)
    unused_image = 1
    is_in_part[[unused_image, 3, 11]] = True
    # when
    taken_images = batches_with_part(dataset, is_in_part, batch_size=2)
    # then
    batch_of_3 = [3, 5]
    batch_of_11 = [11]
    assert taken_images.index["row"].to_pylist() == batch_of_3 + batch_of_11
    assert taken_images.rows.tolist() == batch_of_3 + batch_of_11


def test_a_part_without_images_takes_one_batch_so_that_there_is_something_to_score():
    nothing_in_part = np.zeros(4, bool)
    taken_images = batches_with_part(dataset_of([0, 2, 3]), nothing_in_part, batch_size=2)
    assert taken_images.index["row"].to_pylist() == [0, 2]


# Its rows, together with those of the others.


def rows_of(numbers, dataset="c", alphas=(None,), ranks=None, method="pretrained"):
    """Rows of a run, with these numbers of images, one after the other for each alpha.

    Args:
        ranks: of the images' classes; without them, images of even numbers are right.
    """
    if ranks is None:
        ranks = [number % 2 for number in numbers]
    tables = []
    for alpha in alphas:
        table = pd.DataFrame({"row": numbers, "rank": ranks})
        tables.append(table.assign(method=method, alpha=alpha, dataset=dataset))
    table = pd.concat(tables, ignore_index=True)
    return table.astype({"alpha": float, "dataset": "category", "row": "int32", "rank": "int16"})


@pytest.fixture
def run_folder(tmp_path):
    """The folder of the rows of the pretrained model."""
    folder = tmp_path / "net/none/pretrained/all/0"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def objects(tmp_path):
    """The objects of the six images of dataset c, as its index names them."""
    folder = tmp_path / "prepare/c/32"
    folder.mkdir(parents=True)
    return read_objects([write_index(folder / "index.parquet", CORRUPTIONS)])


def write_tables(folder, tables):
    """Write rows to a file for each table, given by name; gives the paths in order."""
    paths = []
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        table.to_parquet(path)
        paths.append(path)
    return paths


def test_the_rows_of_parts_are_those_of_the_dataset_in_the_order_of_its_index(run_folder):
    # given
    tables_of_whole = {"c": rows_of([0, 1, 2, 3, 4])}
    tables_of_parts = {"noise": rows_of([0, 2, 4]), "weather": rows_of([1, 3])}
    whole = write_tables(run_folder, tables_of_whole)
    parts = write_tables(run_folder, tables_of_parts)
    other = write_tables(run_folder, {"other": rows_of([0, 1], "other")})
    # when
    columns = ["row", "rank"]
    rows_of_whole = read_rows("pretrained", [*whole, *other], columns)
    rows_of_parts = read_rows("pretrained", [*parts, *other], columns)
    # then
    assert list(rows_of_parts) == ["c", "other"]
    assert list(rows_of_whole) == ["c", "other"]
    for dataset, expected_rows in rows_of_whole.items():
        assert len(expected_rows) > 0
        rows = rows_of_parts[dataset][columns]
        assert rows.to_numpy().tolist() == expected_rows[columns].to_numpy().tolist()


def test_the_rows_of_a_curve_stay_in_the_order_of_alpha():
    alphas = (0.0, 0.5, 1.0)
    noise = rows_of([0, 3], alphas=alphas)
    weather = rows_of([1, 2], alphas=alphas)
    whole = rows_of([0, 1, 2, 3], alphas=alphas)
    pd.testing.assert_frame_equal(parts_together([noise, weather]), whole)


def test_correct_predictions_are_counted_over_all_parts(run_folder, objects):
    # given
    tables_of_parts = {
        "noise": rows_of([0, 2, 5]),
        "empty": rows_of([]),  # of the images within the budget, none may be of this part
        "weather": rows_of([1, 3, 4]),
    }
    whole = write_tables(run_folder, {"c": rows_of(range(6))})
    parts = write_tables(run_folder, tables_of_parts)
    # when
    counts_of_whole = count(read_rows_of(RowFiles(whole, [])), objects)
    counts_of_parts = count(read_rows_of(RowFiles(parts, [])), objects)
    # then
    assert len(counts_of_parts.states) == 1
    assert counts_of_parts.states == counts_of_whole.states
    even_images_are_right = [[1, 0, 1, 0, 1, 0]]
    assert counts_of_whole.correct["c"].tolist() == even_images_are_right
    assert counts_of_parts.correct["c"].tolist() == even_images_are_right
    assert counts_of_parts.images["c"].tolist() == [1, 1, 1, 1, 1, 1]


def test_a_missing_part_is_noticed(run_folder, tmp_path, objects):
    # given
    other_run = tmp_path / "net/c/ft/all/0"
    other_run.mkdir(parents=True)
    noise = rows_of([0, 2, 5])
    weather = rows_of([1, 3, 4])
    complete = write_tables(run_folder, {"noise": noise, "weather": weather})
    without_weather = write_tables(other_run, {"noise": noise})
    # then
    with pytest.raises(UserError, match="were scored on different images of c;"):
        count(read_rows_of(RowFiles([*complete, *without_weather], [])), objects)


def test_rows_with_a_part_without_images_keep_their_types():
    rows = rows_of([0, 3])
    no_rows = rows_of([]).astype({"row": "int64"})
    pd.testing.assert_frame_equal(parts_together([rows, no_rows]), rows)


# Rows of a run that are loaded in Python.


@pytest.fixture
def evaluated(tmp_path):
    """Writes files of rows, with their manifests, of the run tiny/paper/net/red/ft/all/0."""

    def write(tables):
        folder = tmp_path / "results/tiny/paper/evaluate/net/red/ft/all/0"
        folder.mkdir(parents=True)
        for path in write_tables(folder, tables):
            facts = {"files": {path.name: sha256(path)}, "networks": [FINE_TUNED]}
            write_json(path.with_suffix(".manifest.json"), facts)
        return tmp_path

    return write


def test_rows_that_two_grids_have_left_count_once(evaluated):
    whole = rows_of([0, 1, 2], method="ft")
    project = evaluated({"c-noise": rows_of([0, 2], method="ft"), "c": whole})
    rows = rib.load_rows(project, "tiny/paper/net/red/ft/all/0")
    pd.testing.assert_frame_equal(rows, whole, check_dtype=False)


def test_rows_of_another_checkpoint_are_refused(evaluated):
    outdated = rows_of([0, 2], ranks=[5, 5], method="ft")
    project = evaluated({"c-noise": outdated, "c": rows_of([0, 1, 2], method="ft")})
    with pytest.raises(UserError, match="rows of the same images of c differ"):
        rib.load_rows(project, "tiny/paper/net/red/ft/all/0")
