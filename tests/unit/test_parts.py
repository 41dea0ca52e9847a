"""Datasets that are evaluated in parts: which images a part has, and what it takes to be one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rib import api
from rib.analysis.counts import count, read_objects, read_rows_of
from rib.analysis.sample_rows import parts_together, read_rows
from rib.base.errors import UserError
from rib.base.files import read_json, sha256, write_json
from rib.data.dataset_part import DatasetPart
from rib.data.groups import read_group
from rib.data.parts import (
    batches_with_part,
    check_part,
    images_of_part,
    read_part,
    write_part,
)
from rib.data.prepared import PreparedDataset
from rib.records.integrity import files_of_manifest
from tiny.grids import grid
from tiny.training import SPACE

NOISE = DatasetPart(column="corruption", levels=["shot", "gauss"])
WEATHER = DatasetPart(column="corruption", levels=["fog", "snow"])
CORRUPTIONS = ["shot", "fog", "gauss", "gauss", "snow", "shot"]
WHERE = "datasets.yaml, c, parts"


@pytest.fixture
def index(tmp_path):
    """An index of six images with a corruption and a severity."""
    return write_index(tmp_path / "index.parquet", CORRUPTIONS)


def write_index(path, corruptions):
    number = len(corruptions)
    table = pa.table(
        {
            "row": pa.array(range(number), pa.int32()),
            "image_id": [f"{i}" for i in range(number)],
            "label": pa.array([0] * number, pa.int32()),
            "object_id": [f"{i}" for i in range(number)],
            "corruption": pa.array(corruptions).dictionary_encode(),  # as prepared datasets have it
            "severity": pa.array(range(1, number + 1), pa.int32()),
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
    assert images_of_part(index, light).tolist() == [True, True] + [False] * 4


@pytest.mark.parametrize(
    "part, reason",
    [
        (
            {"column": "weather"},
            "the index has no column 'weather'; choose from corruption, severity.",
        ),
        ({"column": "label"}, "the index has no column 'label'; choose from"),
        (
            {"levels": ["shot", "gauss", "frost"]},
            "no image has the corruption 'frost'; their levels are 'fog', 'gauss', 'shot', 'snow'.",
        ),
    ],
)
def test_a_part_that_does_not_exist_is_told(index, part, reason):
    check_part(index, NOISE, WEATHER.levels, WHERE)
    with pytest.raises(UserError) as error:
        check_part(index, NOISE.model_copy(update=part), WEATHER.levels, WHERE)
    assert str(error.value).startswith(f"{WHERE}: {reason}")


def test_images_in_no_part_are_told(index):
    with pytest.raises(UserError) as error:
        check_part(index, NOISE, ("snow",), WHERE)
    assert str(error.value) == (
        f"{WHERE}: images with the corruption 'fog' are in no part; add it to one."
    )


def test_a_dataset_without_slices_can_have_no_parts(tmp_path):
    pq.write_table(pa.table({"row": [0], "label": [0]}), tmp_path / "index.parquet")
    with pytest.raises(UserError, match="has no column 'corruption'; remove parts."):
        check_part(tmp_path / "index.parquet", NOISE, WEATHER.levels, WHERE)


def test_the_manifest_of_a_part_lists_its_dataset_like_that_of_a_group(index, tmp_path):
    write_json(tmp_path / "manifest.json", {"files": {"index.parquet": sha256(index)}})
    listed = tmp_path / "group.json"
    write_part(
        dataset="c",
        part=NOISE,
        other_levels=WEATHER.levels,
        dataset_manifest=tmp_path / "manifest.json",
        index=index,
        manifest=listed,
    )
    assert read_group(listed) == {"c": tmp_path}
    assert read_part(listed) == NOISE
    assert "fog" not in listed.read_text(), "another part may change without evaluating this again"
    assert set(files_of_manifest(listed)) == {tmp_path / "manifest.json", index}, (
        "which a job verifies"
    )
    group = read_json(listed)
    del group["part"]
    write_json(listed, group)
    assert read_part(listed) is None


# Which batches it takes.


def dataset_of(rows):
    index = pa.table({"row": pa.array(rows, pa.int32())})
    labels = np.zeros(len(rows), np.int64)
    return PreparedDataset("c", None, labels, np.array(rows), index, SPACE)


def test_a_part_takes_the_whole_batches_that_have_an_image_of_it():
    dataset = dataset_of([0, 2, 3, 5, 8, 9, 11])  # of an index of 12, in batches of 2
    is_in_part = np.zeros(12, bool)
    is_in_part[[1, 3, 11]] = True  # image 1 is not used
    taken = batches_with_part(dataset, is_in_part, 2)
    assert taken.index["row"].to_pylist() == [3, 5, 11]
    assert taken.rows.tolist() == [3, 5, 11]


def test_a_part_without_images_takes_one_batch_so_that_there_is_something_to_score():
    taken = batches_with_part(dataset_of([0, 2, 3]), np.zeros(4, bool), 2)
    assert taken.index["row"].to_pylist() == [0, 2]


# Its rows, together with those of the others.


def rows_of(numbers, dataset="c", alphas=(None,), ranks=None):
    """Rows of a run, with these numbers of images, one after the other for each alpha."""
    tables = []
    for alpha in alphas:
        table = pd.DataFrame({"row": numbers, "rank": ranks or [number % 2 for number in numbers]})
        tables.append(table.assign(alpha=alpha, dataset=dataset))
    table = pd.concat(tables, ignore_index=True)
    return table.astype({"alpha": float, "dataset": "category", "row": "int32", "rank": "int16"})


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "net/none/pretrained/all/0"
    folder.mkdir(parents=True)
    return folder


def written(folder, **tables):
    """A file of rows of each table."""
    paths = []
    for name, table in tables.items():
        paths.append(folder / f"{name}.parquet")
        table.to_parquet(paths[-1])
    return paths


def test_the_rows_of_parts_are_those_of_the_dataset_in_the_order_of_its_index(run_folder):
    other = rows_of([0, 1], "other")
    (whole, of_other) = written(run_folder, c=rows_of([0, 1, 2, 3, 4]), other=other)
    parts = written(run_folder, noise=rows_of([0, 2, 4]), weather=rows_of([1, 3]))
    columns = ["row", "rank"]
    expected = read_rows([whole, of_other], columns)
    together = read_rows([*parts, of_other], columns)
    assert list(together) == ["c", "other"]
    for dataset, rows in expected.items():
        assert together[dataset][columns].to_numpy().tolist() == rows[columns].to_numpy().tolist()


def test_the_rows_of_a_curve_stay_in_the_order_of_alpha():
    alphas = (0.0, 0.5, 1.0)
    parts = [rows_of([0, 3], alphas=alphas), rows_of([1, 2], alphas=alphas)]
    together = parts_together(parts)
    whole = rows_of([0, 1, 2, 3], alphas=alphas)
    pd.testing.assert_frame_equal(together, whole)


def test_correct_predictions_are_counted_over_all_parts(run_folder, tmp_path):
    folder = tmp_path / "prepare/c/32"
    folder.mkdir(parents=True)
    objects = read_objects([write_index(folder / "index.parquet", CORRUPTIONS)])
    (whole,) = written(run_folder, c=rows_of(range(6)))
    parts = written(
        run_folder,
        noise=rows_of([0, 2, 5]),
        empty=rows_of([]),  # of the images within the budget, none may be of this part
        weather=rows_of([1, 3, 4]),
    )
    expected = count(read_rows_of([whole]), objects)
    counted = count(read_rows_of(parts), objects)
    assert counted.states == expected.states
    assert counted.correct["c"].tolist() == expected.correct["c"].tolist() == [[1, 0, 1, 0, 1, 0]]
    assert counted.images["c"].tolist() == [1] * 6


def test_a_missing_part_is_noticed(run_folder, tmp_path):
    folder = tmp_path / "prepare/c/32"
    folder.mkdir(parents=True)
    objects = read_objects([write_index(folder / "index.parquet", CORRUPTIONS)])
    other_run = tmp_path / "net/c/ft/all/0"
    other_run.mkdir(parents=True)
    parts = written(run_folder, noise=rows_of([0, 2, 5]), weather=rows_of([1, 3, 4]))
    parts += written(other_run, noise=rows_of([0, 2, 5]))
    with pytest.raises(UserError, match="c"):
        count(read_rows_of(parts), objects)


def test_rows_with_a_part_without_images_keep_their_types():
    some, none = rows_of([0, 3]), rows_of([]).astype({"row": "int64"})
    pd.testing.assert_frame_equal(parts_together([some, none]), some)


# The Python interface.


def test_rows_that_two_grids_have_left_count_once(run_folder):
    whole = rows_of([0, 1, 2])
    files = written(run_folder, **{"c-noise": rows_of([0, 2]), "c": whole})
    pd.testing.assert_frame_equal(api._rows_in_order(files), whole, check_dtype=False)


def test_rows_of_another_checkpoint_are_refused(run_folder):
    outdated = rows_of([0, 2], ranks=[5, 5])
    files = written(run_folder, **{"c-noise": outdated, "c": rows_of([0, 1, 2])})
    with pytest.raises(UserError, match="rows of the same images of c differ"):
        api._rows_in_order(files)


def test_a_run_that_has_some_parts_alone_is_refused():
    chosen = grid(family="imagenet", datasets=["imagenet_r", "imagenet_c"])
    of_r, *parts = chosen.evaluation_groups()
    files = [Path(f"net/none/pretrained/all/0/{name}.parquet") for name in (of_r, *parts)]
    api._refuse_missing_parts(chosen, files)
    api._refuse_missing_parts(chosen, files[:1])  # C was not evaluated at all
    *without_digital, _ = files
    with pytest.raises(UserError, match="there are no rows of imagenet_c-digital"):
        api._refuse_missing_parts(chosen, without_digital)
