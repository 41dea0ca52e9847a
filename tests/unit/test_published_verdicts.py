"""Measured accuracies beside published ones, from rows made up."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rib.analyses.published import tables as published
from rib.analyses.published.obstacles import obstacle_to_comparison
from rib.analyses.published.stated import stated_accuracies, stated_methods
from rib.analyses.published.tables import beside_papers
from rib.base.errors import UserError
from rib.base.params import replaced
from rib.catalog.catalog import Catalog
from rib.catalog.published import (
    METHOD_COLUMNS,
    PublishedAccuracy,
    published_accuracies,
    published_methods,
)
from rib.statistics.inputs import Inputs
from tiny.changed import replace
from tiny.projects.grids import grid

CATALOG = Path(__file__).parents[2] / "workflow/catalog"


@pytest.fixture
def rows(tmp_path):
    """Answers of two models on two datasets of 20,000 and 10,000 images, in a file per model.

    They are given by how many are right, by both.
    """
    right = {("net", "a"): 16040, ("net", "b"): 6000, ("other", "a"): 10000, ("other", "b"): 5000}
    for model in ("net", "other"):
        parts = []
        for dataset, n in (("a", 20_000), ("b", 10_000)):
            ranks = 3 * (np.arange(n) >= right[model, dataset])
            parts.append(pd.DataFrame({"model": model, "dataset": dataset, "rank": ranks}))
        text = {"model": "category", "dataset": "category"}  # as files with dictionaries are read
        pd.concat(parts).assign(confidence=0.5).astype(text).to_parquet(
            tmp_path / f"{model}.parquet"
        )
    return [tmp_path / "net.parquet", tmp_path / "other.parquet"]


def write_manifest(folder, model, precision):
    """Write the manifest of an evaluation of a pretrained model; gives its path."""
    path = folder / model / "none/pretrained/all/0/a.manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"precision": precision}))
    return str(path)


def compared(rows, stated, table, expected=None, obstacles=None, precision="fp32"):
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
            "image_size": None,
            "obstacle": obstacle_of.get(dataset),
        }
        for model, dataset, accuracy, source in stated
    ]
    params = {"published": accuracies, "expected_images": expected or {}}
    manifests = [write_manifest(path.parent / "evaluate", path.stem, precision) for path in rows]
    files = {"rows": [str(path) for path in rows], "manifests": manifests}
    inputs = Inputs(files, params)
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
    assert table["image_size"].isna().all()
    assert table.drop(columns="image_size").to_numpy().tolist() == [
        ["other", "b", 50.15, 50.0, -0.15, 10_000, "within", "x"],
        ["net", "a", 80.4, 80.2, -0.2, 20_000, "within", "y"],
        ["net", "b", 59.7, 60.0, 0.3, 10_000, "outside", "z"],
    ]
    assert "other,b,,50.150,50.000,-0.150,10000,within,x\n" in (tmp_path / "t.csv").read_text()
    printed = capsys.readouterr().out
    assert "2 of 3 " in printed


@pytest.mark.parametrize(("off", "verdict"), [(0.19, "within"), (0.21, "outside")])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_difference_counts_either_way(rows, tmp_path, off, verdict, sign):
    table = compared(rows, [("net", "a", 80.2 + sign * off, "x")], tmp_path / "t.csv")
    assert table["verdict"].tolist() == [verdict]


def test_a_dataset_that_is_not_whole_is_not_compared(rows, tmp_path):
    stated = [("net", "a", 10.0, "x"), ("net", "b", 60.0, "x")]
    table = compared(rows, stated, tmp_path / "t.csv", expected={"a": 24_000, "b": 10_000})
    assert table["verdict"].tolist() == ["not comparable: 20000 of 24000 images", "within"]


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


def test_numbers_in_another_precision_than_fp32_are_not_compared(rows, tmp_path):
    table = compared(rows, [("net", "a", 80.2, "x")], tmp_path / "t.csv", precision="bf16")
    assert table["verdict"].item().startswith("not comparable: ")
    assert "bf16" in table["verdict"].item()


def test_a_dataset_of_fewer_than_10000_images_is_not_compared(tmp_path):
    # given
    few = pd.DataFrame({"model": "net", "dataset": "a", "rank": np.zeros(9_999, int)})
    few.to_parquet(tmp_path / "net.parquet")
    # when
    table = compared([tmp_path / "net.parquet"], [("net", "a", 100.0, "x")], tmp_path / "t.csv")
    # then
    assert table["verdict"].item().startswith("not comparable: 9999 images")


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
        published = PublishedAccuracy(model, dataset, 50.0, "tests")
        obstacle = obstacle_to_comparison(chosen_grid, model, published)
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


# Which published number stands beside a model

TWO_SIZES = "resnet50.tv2_in1k"


@pytest.mark.parametrize("size", [176, 224])
def test_a_model_that_is_published_at_two_sizes_has_the_number_of_the_size_it_is_run_at(size):
    # given
    rows = pd.read_csv(CATALOG / "timm_accuracies.csv", comment="#")
    expected = rows.query("model == @TWO_SIZES and img_size == @size")["imagenet_r"].item()
    # when
    stated = stated_accuracies(photos(models=[TWO_SIZES], image_size=size))
    (of_r,) = (row for row in stated if row["dataset"] == "imagenet_r")
    # then
    assert of_r["accuracy"] == expected
    assert of_r["image_size"] == size
    assert (of_r["obstacle"] is None) == (size == 224), "at 176 pixels timm has another crop"


def test_a_size_that_is_not_published_is_an_obstacle():
    stated = stated_accuracies(photos(models=[VIT], image_size=192))
    assert all("192" in row["obstacle"] and row["image_size"] == 224 for row in stated)


# Papers

CLIP = "ViT-B-16.openai"


def test_without_a_target_in_distribution_or_a_papers_model_no_method_is_published():
    assert stated_methods(photos(models=[CLIP], methods=["ft"])) == []
    on_train = photos(models=["resnet18.tv_in1k"], methods=["ft"], targets=["imagenet_train"])
    assert stated_methods(on_train) == []


def test_published_methods_stand_beside_the_mean_over_seeds():
    # given
    chosen = photos(models=[CLIP], methods=["ft"], targets=["imagenet_train"])
    stated = stated_methods(chosen)
    measured = pd.DataFrame(
        {
            "model": CLIP,
            "method": ["pretrained", "ft"],
            "target": "imagenet_train",
            "size": "all",
            "alpha": np.nan,
            "dataset": "imagenet_v2",
            "seeds": [1, 3],
            "accuracy": [61.0, 71.0],
            "accuracy_sd": [np.nan, 0.5],
        }
    )
    # when
    table = beside_papers(measured, stated)
    # then
    of_v2 = table[table["dataset"] == "imagenet_v2"].set_index(["table", "method"])
    of_ft = of_v2[of_v2["run"] == "ft"].loc[("2", "ft")]
    assert of_ft["published"] == 70.6
    assert of_ft["measured"] == 71
    assert of_ft["measured_sd"] == 0.5
    assert of_ft["seeds"] == 3
    assert of_ft["difference"] == pytest.approx(0.4)
    assert "3e-5" in of_ft["differs"]
    assert np.isnan(of_v2.loc[("README", "ARF"), "measured"])
    assert "verdict" not in table
    assert len(table) == sum(max(1, len(row["runs"])) for row in stated)


# Bad rows


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("published.csv", "model,dataset,accuracy,source\nno_net,imagenet_v2,50,s\n", 2),
        ("published.csv", "model,dataset,accuracy,source\n{vit},imagenet_v9,50,s\n", 2),
        ("published.csv", "model,dataset,accuracy,source\n{vit},imagenet_v2,100.5,s\n", 2),
        ("published.csv", "model,dataset,accuracy,source\n{vit},imagenet_v2,half,s\n", 2),
        ("timm_accuracies.csv", "# source: s\nmodel,imagenet_v2\na,1\nb,-1\n", 4),
        ("timm_accuracies.csv", "# source: s\nmodel,imagenet_v9\na,1\n", 3),
        ("timm_accuracies.csv", "# source: s\nmodel,img_size,imagenet_v2\na,big,1\n", 3),
        ("timm_accuracies.csv", "model,imagenet_v2\na,1\n", 1),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_line(tmp_path, file, text, line):
    (tmp_path / file).write_text(text.replace("{vit}", VIT))
    with pytest.raises(UserError, match=f"{file} line {line}: "):
        published_accuracies(Catalog([CATALOG, tmp_path]))


@pytest.mark.parametrize(
    "changed", [{"model": "no_net"}, {"dataset": "v9"}, {"target": "v9"}, {"accuracy": "101"}]
)
def test_a_bad_row_of_a_method_is_named_with_its_file_and_line(tmp_path, changed):
    row = dict.fromkeys(METHOD_COLUMNS, "x")
    row |= {"model": CLIP, "target": "imagenet_train", "dataset": "imagenet_v2", "accuracy": "50"}
    row |= changed
    pd.DataFrame([row]).to_csv(tmp_path / "published_methods.csv", index=False)
    with pytest.raises(UserError, match=r"published_methods\.csv line 2: "):
        published_methods(Catalog([CATALOG, tmp_path]))
