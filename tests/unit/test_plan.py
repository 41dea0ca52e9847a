"""Plans against sums done by hand."""

import pytest
import yaml

from rib.catalog import Catalog, validated
from rib.grid import Grid
from rib.plan import lines, plan

STATED = "architecture,evaluate,train,source\nnet,1000,100,tests\n"


@pytest.fixture
def grid(tmp_path, pytestconfig):
    """Builds a grid of one model on a family of three sets of 1000, 2000 and 3000 images of two classes."""
    project = pytestconfig.rootpath / "workflow/catalog"
    (tmp_path / "families").mkdir()
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes/two.csv").write_text("wnid\nn01440764\nn02206856\n")
    defaults = {
        "models": ["net"],
        "methods": ["ft"],
        "targets": ["a"],
        "image_size": 112,
        "epochs": 10,
        "batch_size": 8,
    }
    family = {
        "title": "F",
        "description": "d",
        "classes": {"file": "two.csv", "format": "wnids"},
        "reference": {"part_of": "a", "images_per_class": 50},
        "defaults": defaults,
    }
    (tmp_path / "families/f.yaml").write_text(yaml.safe_dump(family))
    source = {"kind": "http", "urls": ["http://127.0.0.1/x"], "file": "x.tar", "size": 500, "digest": "md5:" + 32 * "0"}
    entry = {"family": "f", "source": source, "layout": "class_folders", "licence": "l", "origin": "o"}
    datasets = {name: {**entry, "label": name, "images": 1000 * (i + 1)} for i, name in enumerate("abc")}
    datasets["a"]["source_group"] = datasets["b"]["source_group"] = "g"
    datasets["c"]["storage"] = "encoded"
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(datasets))
    model = {
        "families": ["f"],
        "label": "Net",
        "type": "cnn",
        "pretraining": "p",
        "library": "timm",
        "architecture": "net",
        "parameters": 1000,
        "source": {"kind": "hub", "repo": "a/b", "path": "p.safetensors", "file": "net.safetensors"},
        "preprocessing": {"size": 224, "crop": 1.0, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
        "licence": "l",
        "style": {"colour": "#000000", "marker": "x"},
    }
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"net": model}))
    (tmp_path / "throughput.csv").write_text(STATED)
    catalog = Catalog([project, tmp_path])
    return lambda **choices: (Grid(validated({"family": "f", **choices}, "config", "c"), catalog), catalog)


def made(grid, tmp_path, **choices):
    chosen, catalog = grid(**choices)
    return plan(chosen, catalog, tmp_path / "results"), chosen


def test_images_hours_and_bytes(grid, tmp_path):
    found, _ = made(grid, tmp_path)
    # 100 of a's 1000 stand for pretraining; b shares its sources and loses as large a part
    assert found.images == {"train": 10 * 900, "evaluate": 2 * (900 + 1800 + 3000)}
    # at 112 px four times as fast as stated
    assert found.hours["train"] == pytest.approx(9000 / 400 / 3600)
    assert found.hours["evaluate"] == pytest.approx(11400 / 4000 / 3600)
    assert found.download == 3 * 500 + 4000
    assert found.disk == {
        "archives": 1500,
        "rows per image": 16 * 11400,
        "prepared images": (1000 + 2000) * 112 * 112 * 3 + 500,
        "pretrained weights": 8000,
        "checkpoints, at most": 4000,
    }


def test_budget_sizes_seeds_and_splits_count(grid, tmp_path):
    found, _ = made(
        grid, tmp_path, budget={"max_images_per_dataset": 500}, seeds=[0, 1], downstream_size=["all", "0.1"]
    )
    assert found.images == {"train": 2 * 10 * (500 + 50), "evaluate": 5 * 1500}
    found, _ = made(grid, tmp_path, reference="none", protocol="held_out")
    assert found.images == {"train": 10 * 600, "evaluate": 2 * 1200}
    assert found.jobs["finetune"] == 1 and found.jobs["evaluate_run"] == 2 * 3 and found.jobs["split_dataset"] == 3


def test_a_curve_passes_each_image_through_all_its_states(grid, tmp_path):
    found, _ = made(grid, tmp_path, methods=["wise_ft_curve"], reference="none")
    assert found.images["evaluate"] == (1 + 1 + 11) * 6000


def test_what_is_not_known_is_said(grid, tmp_path):
    (tmp_path / "throughput.csv").write_text(STATED.replace("net", "other"))
    found, chosen = made(grid, tmp_path)
    text = "\n".join(lines(found, chosen))
    assert "Training   9,000 images, hours unknown" in text and "no jobs have run and none is stated" in text
