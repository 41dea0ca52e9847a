"""Models that are trained here and several downstream sizes, end to end on the tiny family."""

import json
import re

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.thorough

HALF = [0.5, 0.5, 0.5]
MODEL = {
    "families": ["tiny"],
    "type": "cnn",
    "pretraining": "memory",
    "library": "timm",
    "architecture": "test_efficientnet",
    "preprocessing": {
        "input_size": 160,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": HALF,
        "std": HALF,
    },
    "licence": "none",
    "style": {"colour": "#000000", "marker": "o"},
}
HOW = {"dataset": "memory", "test": "usual", "epochs": 1, "batch_size": 5, "lr": 0.01}
USUAL = {
    "family": "tiny",
    "label": "Usual",
    "role": "in_distribution",
    "archives_of": "blue",
    "layout": "class_folders",
    "evaluation_group": "tiny",
    "licence": "none",
    "origin": "tests",
}
CONFIG = ("catalog=[mine,own]", "models=[net_10,net_all]", "methods=[ft,replay]", "targets=[red]")
SIZES = "train_subset=[all,5]"


@pytest.fixture
def own(project):
    """The project with two models that are pretrained here and a dataset that tests them."""
    folder = project.folder / "own"
    folder.mkdir()
    sizes = {"net_10": 10, "net_all": "all"}
    models = {
        name: {**MODEL, "label": name, "pretrain": {**HOW, "size": size}}
        for name, size in sizes.items()
    }
    (folder / "models.yaml").write_text(yaml.safe_dump(models))
    (folder / "datasets.yaml").write_text(yaml.safe_dump({"usual": USUAL}))
    return project


@pytest.mark.slow
def test_models_are_pretrained_benchmarked_and_compared_by_size(own):
    planned = own.planned(config=(*CONFIG, SIZES))
    assert planned["pretrain_model"] == 2 and "convert_model" not in planned
    said = own.rib("plan", config=(*CONFIG, SIZES))
    trainings = planned["pretrain_model"] + planned.get("finetune", 0)
    assert f"{trainings} training" in said
    own.snakemake("--cores", "2", config=(*CONFIG, SIZES))
    folder = own.folder / "results/tiny/models"
    facts = {
        name: json.loads((folder / name / "model.json").read_text())
        for name in ("net_10", "net_all")
    }
    assert [fact["trained"]["images"] for fact in facts.values()] == [10, 20]
    tables = own.folder / "reports/tiny/tables"
    accuracy = pd.read_csv(tables / "accuracy.csv").query(
        "method == 'pretrained' and dataset == 'usual'"
    )
    assert accuracy.set_index("model")["accuracy"].to_dict() == {
        name: fact["trained"]["test"]["accuracy"] for name, fact in facts.items()
    }
    sizes = pd.read_csv(tables / "sizes.csv", dtype={"size": str})
    assert set(zip(sizes["size"], sizes["train_images"], strict=True)) == {("all", 20), ("5", 5)}
    assert set(zip(sizes["model"], sizes["pretraining_images"], strict=True)) == {
        ("net_10", 10),
        ("net_all", 20),
    }
    assert len(pd.read_csv(tables / "pretraining_sizes.csv")) == 2 * 2 * 2
    page = (own.folder / "reports/tiny/index.html").read_text()
    assert "train_subsets.png" in page and "pretraining_sizes.png" in page
    assert "Nothing to be done" in own.snakemake("--cores", "2", config=(*CONFIG, SIZES))
    cfg = json.loads(
        (folder.parent / "paper/finetune/net_10/red/replay/all/0/provenance.json").read_text()
    )["cfg"]
    assert cfg["view"]["pretraining_size"] == "10", (
        "images that the model never saw are no proxy of its pretraining"
    )
    # another rate pretrains one model anew, and what depends on it
    own.edit("own/models.yaml", "lr: 0.01", "lr: 0.02")
    planned = own.planned(config=(*CONFIG, SIZES))
    assert planned["pretrain_model"] == 1 and planned["finetune"] == 4 and planned["evaluate"] == 5


def test_a_grid_of_one_size_and_published_models_has_no_such_analysis(project):
    planned = project.planned()
    assert not {"analyse_train_subsets", "pretrain_model"} & planned.keys()
    planned = project.planned(config=(SIZES,))
    assert planned["analyse_train_subsets"] == 1


def test_pretraining_on_what_is_not_kept_for_it_is_refused(own):
    own.edit("own/models.yaml", "dataset: memory", "dataset: red")
    printed = own.snakemake("-n", config=CONFIG, check=False)
    assert re.search("pretrain.dataset.*role reference.*'red'", printed)
