"""Measured accuracies beside published ones, from rows made up."""

import numpy as np
import pandas as pd
import pytest

from rib.analyses.published import tables as published
from rib.analyses.published.obstacles import obstacle_to_comparison
from rib.base.params import replaced
from rib.statistics.inputs import Inputs
from tiny.changed import replace
from tiny.projects.grids import grid


@pytest.fixture
def rows(tmp_path):
    """Answers of two models on two datasets of 1,000 and 500 images, in a file per model.

    They are given by how many are right, by both.
    """
    right = {("net", "a"): 802, ("net", "b"): 300, ("other", "a"): 500, ("other", "b"): 250}
    for model in ("net", "other"):
        parts = []
        for dataset, n in (("a", 1000), ("b", 500)):
            ranks = 3 * (np.arange(n) >= right[model, dataset])
            parts.append(pd.DataFrame({"model": model, "dataset": dataset, "rank": ranks}))
        text = {"model": "category", "dataset": "category"}  # as files with dictionaries are read
        pd.concat(parts).assign(confidence=0.5).astype(text).to_parquet(
            tmp_path / f"{model}.parquet"
        )
    return [tmp_path / "net.parquet", tmp_path / "other.parquet"]


def compared(rows, stated, table, expected=None, obstacles=None):
    """The table of comparisons.

    Args:
        stated: model, dataset, accuracy and source of each published number.
        expected: images of whole datasets, by name.
        obstacles: reasons why accuracies on datasets are not comparable, by name.
    """
    obstacle_of = obstacles or {}
    accuracies = [
        {
            "model": model,
            "dataset": dataset,
            "accuracy": accuracy,
            "source": source,
            "obstacle": obstacle_of.get(dataset),
        }
        for model, dataset, accuracy, source in stated
    ]
    params = {"published": accuracies, "expected_images": expected or {}}
    inputs = Inputs({"rows": [str(path) for path in rows]}, params)
    (text,) = published.tables(inputs).values()
    table.write_text(text)
    return pd.read_csv(table)


def test_each_published_number_has_what_was_measured_and_the_difference(rows, tmp_path, capsys):
    stated = [
        ("other", "b", 50.15, "x"),
        ("net", "a", 80.4, "y"),
        ("net", "b", 59.7, "z"),
        ("third", "a", 50, "none"),
    ]
    table = compared(rows, stated, tmp_path / "t.csv")
    assert table.to_numpy().tolist() == [
        ["other", "b", 50.15, 50.0, -0.15, 500, "within", "x"],
        ["net", "a", 80.4, 80.2, -0.2, 1000, "within", "y"],
        ["net", "b", 59.7, 60.0, 0.3, 500, "outside", "z"],
    ]
    assert "other,b,50.150,50.000,-0.150,500,within,x\n" in (tmp_path / "t.csv").read_text()
    printed = capsys.readouterr().out
    assert "2 of 3 " in printed


@pytest.mark.parametrize(("off", "verdict"), [(0.19, "within"), (0.21, "outside")])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_difference_counts_either_way(rows, tmp_path, off, verdict, sign):
    table = compared(rows, [("net", "a", 80.2 + sign * off, "x")], tmp_path / "t.csv")
    assert table["verdict"].tolist() == [verdict]


def test_a_dataset_that_is_not_whole_is_not_compared(rows, tmp_path):
    stated = [("net", "a", 10.0, "x"), ("net", "b", 60.0, "x")]
    table = compared(rows, stated, tmp_path / "t.csv", expected={"a": 1200, "b": 500})
    assert table["verdict"].tolist() == ["not comparable: 1000 of 1200 images", "within"]


def test_settings_that_are_not_those_of_published_numbers_are_an_obstacle_to_all(rows, tmp_path):
    obstacles = {"a": "half precision", "b": "half precision"}
    table = compared(
        rows,
        [("net", "a", 80.2, "x"), ("net", "b", 1.0, "x")],
        tmp_path / "t.csv",
        {"a": 5},
        obstacles,
    )
    assert set(table["verdict"]) == {"not comparable: half precision"}
    assert table["difference"].tolist() == [0.0, 59.0]


def test_an_obstacle_on_one_dataset_leaves_the_others_comparable(rows, tmp_path, capsys):
    # given three published numbers, one of them on a dataset that was read in part
    stated = [("net", "a", 80.2, "x"), ("net", "b", 60.0, "x"), ("other", "a", 30.0, "x")]
    # when
    table = compared(rows, stated, tmp_path / "t.csv", obstacles={"b": "a part of b"})
    # then
    assert table["verdict"].tolist() == ["within", "not comparable: a part of b", "outside"]
    assert "1 of 3 " in capsys.readouterr().out


# What is an obstacle

VIT = "vit_small_patch16_224.augreg_in1k"


def photos(**choices):
    """A grid of two models on four datasets of the family imagenet, seen as published."""
    return grid(
        **{
            "family": "imagenet",
            "models": [VIT, "resnet18.tv_in1k"],
            "datasets": ["imagenet_val", "imagenet_v2", "imagenet_r", "imagenet_sketch"],
            "targets": ["imagenet_r"],
            "reference": "none",
            "methods": [],
            "uncropped": [],
            **choices,
        }
    )


def obstacles_in(chosen_grid, model=VIT):
    """The obstacles of the datasets that have one, by name."""
    obstacles = {}
    for dataset in chosen_grid.datasets:
        obstacle = obstacle_to_comparison(chosen_grid, model, dataset)
        if obstacle is not None:
            obstacles[dataset] = obstacle
    return obstacles


def test_a_grid_of_whole_datasets_as_published_has_no_obstacle():
    assert obstacles_in(photos()) == {}


@pytest.mark.parametrize("limits", [{"imagenet_r": 0.1}, {"imagenet_r": 29_999}])
def test_a_limit_is_an_obstacle_on_the_dataset_that_it_leaves_images_out_of(limits):
    # given ImageNet-R of 30,000 images
    limited = photos(budget={"max_images_per_dataset": limits})
    # then
    assert obstacles_in(limited).keys() == {"imagenet_r"}


def test_a_limit_that_leaves_no_image_out_is_no_obstacle():
    assert obstacles_in(photos(budget={"max_images_per_dataset": {"imagenet_r": 30_000}})) == {}


def test_a_limit_of_all_datasets_is_an_obstacle_on_each_that_is_larger():
    limited = photos(budget={"max_images_per_dataset": 10_000})
    assert obstacles_in(limited).keys() == {"imagenet_val", "imagenet_r", "imagenet_sketch"}


def test_any_limit_is_an_obstacle_where_the_number_of_images_is_not_stated():
    # given
    limited = photos(budget={"max_images_per_dataset": {"imagenet_r": 40_000}})
    unknown = replaced(limited.datasets["imagenet_r"], images=None)
    limited = replace(limited, datasets={**limited.datasets, "imagenet_r": unknown})
    # then
    assert obstacles_in(limited).keys() == {"imagenet_r"}


def test_whole_photos_are_an_obstacle_on_their_dataset():
    assert obstacles_in(photos(uncropped=["imagenet_v2"])).keys() == {"imagenet_v2"}


def test_splits_are_an_obstacle_on_all_datasets():
    assert len(obstacles_in(photos(protocol="held_out"))) == 4


def test_another_geometry_is_an_obstacle_of_the_models_that_were_published_with_a_different_one():
    # given a model that was published at 224 pixels, and one that is not
    small = photos(image_size=224)
    preprocessing = replaced(small.models[VIT].preprocessing, input_size=384)
    larger = replaced(small.models[VIT], preprocessing=preprocessing)
    small = replace(small, models={**small.models, VIT: larger})
    # then
    assert "imagenet_val" in obstacles_in(small)
    assert obstacles_in(small, "resnet18.tv_in1k") == {}
