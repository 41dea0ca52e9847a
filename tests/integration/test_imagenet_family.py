"""The ImageNet family end to end: small archives of the true layouts, through the workflow.

The archives come from a server, and the workflow is the real one. Every class has a picture whose
colour tells its index, so that each label can be checked image by image.
"""

import json
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from rib.catalog.label_space import read_real_labels
from rib.data.dataset import PreparedDataset
from rib.schema.geometry import Geometry
from tiny.data.imagenet import CLASSES, COUNTS, PASSWORD, use_archives
from tiny.data.photos import index_of
from tiny.projects import family
from tiny.projects.project import Project, copy_project, rows_of
from tiny.servers.files import serve

pytestmark = pytest.mark.slow

SMALL = Geometry(size=32, crop_pct=1.0, interpolation="bicubic")
PARTS_OF_C = ("noise", "blur", "weather", "digital")  # in which it is evaluated
CONFIG = (
    "compute={device: cpu}",  # the family expects a GPU
    "catalog=mine",
    "models=[tiny_cnn]",
    "image_size=32",
    "methods=[ft,replay]",
    "training={epochs: 1, batch_size: 64}",
    # of the family's two schedules and sizes those of the paper: the targets here have fewer than
    # 1000 images
    "method_settings={ft: {recipe: paper}}",
    "train_subset=[all]",
    "targets=[imagenet_a]",
)


# The run


@dataclass(frozen=True)
class ImageNetRun:
    """A project whose catalogue points at a server of small archives, after its run."""

    project: Project
    printed: str  # by its two calls

    @property
    def tables(self):
        """The folder of the published tables."""
        return self.project.folder / "reports/imagenet/tables"

    @property
    def results(self):
        """The folder of the protocol's results."""
        return self.project.folder / "results/imagenet/paper"

    def table(self, name):
        """A published table."""
        return pd.read_csv(self.tables / f"{name}.csv")

    def rows(self, run, group="imagenet"):
        """Rows of a run, such as none/pretrained, on the datasets of an evaluation group."""
        return rows_of(self.results / f"evaluate/tiny_cnn/{run}/all/0/{group}.parquet")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """The family's run on small archives."""
    # given a catalogue with smaller datasets, and archives
    folder = tmp_path_factory.mktemp("imagenet")
    project = Project(copy_project(folder / "project"), family="imagenet")
    family.make(project.folder / "mine")
    project.edit(
        "workflow/catalog/families/imagenet.yaml", "images_per_class: 5", "images_per_class: 1"
    )
    served = folder / "served"
    served.mkdir()
    with serve(served) as address:
        use_archives(project, served, address)
        # when what has to be fetched by hand is asked for
        printed = project.snakemake("--cores", "2", "--keep-going", config=CONFIG, check=False)
        # and then lies where the user keeps archives
        printed += project.snakemake(
            "--cores",
            "2",
            config=(*CONFIG, f"archives={served}"),
            OBJECTNET_PASSWORD=PASSWORD,
        )
    return ImageNetRun(project, printed)


def test_what_is_gated_is_asked_for_with_its_terms(imagenet):
    assert re.search("imagenet_val: ILSVRC2012_img_val.tar .*non-commercial", imagenet.printed)
    assert "`archives`" in imagenet.printed
    assert re.search("objectnet-1.0.zip is encrypted.* OBJECTNET_PASSWORD", imagenet.printed)


@pytest.mark.parametrize("name", COUNTS)
def test_every_image_has_its_label(imagenet, name):
    (folder,) = (imagenet.project.folder / f"results/imagenet/prepare/{name}").iterdir()
    is_encoded = folder.name == "encoded"
    assert is_encoded == (name == "imagenet_c")
    dataset = PreparedDataset.open(folder, name, SMALL)
    assert len(dataset.labels) == COUNTS[name]
    all_images = dataset.images[np.arange(COUNTS[name])]
    for label, image in zip(dataset.labels, all_images, strict=True):
        assert index_of(image) in dataset.space.indices[label], dataset.space.names[label]


def test_the_pretraining_proxy_is_scored_nowhere(imagenet):
    """One of val's two sources of each class is the proxy.

    The other half of val, Cartoon, Drawing and C stays.
    """
    groups = ["imagenet", *(f"imagenet_c-{part}" for part in PARTS_OF_C)]
    rows = pd.concat([imagenet.rows("none/pretrained", group) for group in groups])
    sources = rows.groupby("dataset", observed=True)["source_id"].agg(set)
    assert len(sources["imagenet_val"]) == CLASSES
    assert sources["imagenet_val"] == sources["imagenet_cartoon"] == sources["imagenet_drawing"]
    assert sources["imagenet_c"] <= sources["imagenet_val"]
    assert rows["dataset"].value_counts()["imagenet_v2"] == CLASSES
    labels_of_val = rows.loc[rows["dataset"] == "imagenet_val", "label"]
    assert len(labels_of_val) == CLASSES
    assert labels_of_val.is_unique, "class-balanced"


def test_replay_trains_on_the_pretraining_proxy(imagenet):
    run = imagenet.results / "finetune/tiny_cnn/imagenet_a/replay/all/0"
    record = json.loads((run / "provenance.json").read_text())
    assert any("/prepare/imagenet_val/" in path for path in record["inputs"])
    assert record["cfg"]["view"]["images_per_class"] == 1


def test_labels_of_each_evaluated_dataset_are_checked_once(imagenet):
    """Also those of C, which is large and evaluated in parts."""
    assert sorted(imagenet.table("labels")["dataset"]) == sorted(COUNTS)


def test_val_is_evaluated_and_no_part_of_ri(imagenet):
    accuracy = imagenet.table("accuracy")
    of_dataset = accuracy.pivot_table(
        index=["method", "target"], columns="dataset", values="accuracy"
    )
    ood = [name for name in COUNTS if name not in ("imagenet_val", "imagenet_a")]
    after = of_dataset.loc[("ft", "imagenet_a"), ood]
    before = of_dataset.loc[("pretrained", "none"), ood]
    ri = imagenet.table("ri").set_index(["method", "target"])["ri"]
    assert ri["ft", "imagenet_a"] == pytest.approx((after - before).mean(), abs=1e-5)
    assert set(accuracy["conditions"]) == {
        "protocol paper; pretraining proxy: 1 images per class of IN-1K val, "
        "excluded from IN-1K val, IN-Cartoon, "
        "IN-Drawing, IN-C"
    }


def right_by_real_labels(rows_of_val):
    """Whether the prediction on each validation image that has real labels is among them."""
    real_labels = read_real_labels()
    is_right = []
    for prediction, name in zip(rows_of_val["prediction"], rows_of_val["image_id"], strict=True):
        number = int(re.search(r"(\d+)\.JPEG$", name)[1])
        labels_of_image = real_labels[number - 1]
        if labels_of_image:
            is_right.append(prediction in labels_of_image)
    return is_right


def test_val_is_scored_with_its_real_labels_too(imagenet):
    scores = imagenet.table("scores").set_index(["method", "dataset"])
    other_datasets = scores.drop("imagenet_val", level="dataset")
    assert other_datasets[["real_before", "n_real"]].isna().all(axis=None)
    line = scores.loc[("ft", "imagenet_val")]
    for column, run in {"real_before": "none/pretrained", "real_after": "imagenet_a/ft"}.items():
        rows = imagenet.rows(run)
        is_right = right_by_real_labels(rows[rows["dataset"] == "imagenet_val"])
        assert line[column] == pytest.approx(100 * np.mean(is_right), abs=1e-5)
        assert line["n_real"] == len(is_right)
    assert line["n_real"] < line["n"], "some images have no real label"


def logit(percent):
    """The log odds of an accuracy."""
    return np.log(percent / (100 - percent))


def test_effective_robustness_is_the_height_above_the_published_models_line(imagenet):
    # given the line of each dataset, through the accuracies of published models
    lines = imagenet.table("baseline_lines").set_index("dataset")
    assert lines["models"].to_dict() == {
        "imagenet_v2": 39,
        "imagenet_sketch": 39,
        "imagenet_c": 80,
    }
    line = lines.loc["imagenet_v2"]
    # and accuracies on a thousand images each, of which none right counts as half an image
    accuracy = imagenet.table("accuracy").set_index(["method", "target", "dataset"])["accuracy"]
    on_val = np.clip(accuracy["ft", "imagenet_a", "imagenet_val"], 0.05, 99.95)
    on_v2 = np.clip(accuracy["ft", "imagenet_a", "imagenet_v2"], 0.05, 99.95)
    # then
    table = imagenet.table("effective_robustness")
    assert len(table) == 2 * 3, "two methods and three datasets"
    rho_after = table.set_index(["method", "target", "dataset"])["rho_after"]
    logit_on_line = line["intercept"] + line["slope"] * logit(on_val)
    accuracy_on_line = 100 / (1 + np.exp(-logit_on_line))
    expected = on_v2 - accuracy_on_line
    assert rho_after["ft", "imagenet_a", "imagenet_v2"] == pytest.approx(expected, abs=1e-4)
    assert (imagenet.tables.parent / "figures/effective_robustness.png").is_file()


def test_a_second_run_has_nothing_to_do_and_a_budget_makes_only_what_depends_on_it(imagenet):
    project = imagenet.project
    assert "Nothing to be done" in project.snakemake("-n", config=CONFIG)
    # when
    with_budget = (
        *CONFIG,
        "targets=[imagenet_a,imagenet_cartoon]",
        "budget={max_images_per_dataset: 100}",
    )
    planned = project.planned(config=with_budget)
    project.snakemake("tables", "--cores", "2", config=(*with_budget, "leak_free=true"))
    # then
    assert "prepare" not in planned
    assert planned["finetune"] == 4
    pretrained, methods_and_targets = 1, 2 * 2
    groups = 1 + len(PARTS_OF_C)
    assert planned["evaluate"] == (pretrained + methods_and_targets) * groups
    accuracy = imagenet.table("accuracy")
    assert set(accuracy["n"]) == {75, 100}
    assert "at most 100 images per dataset" in accuracy["conditions"].iloc[0]
    images_of_ri = imagenet.table("ri").set_index(["method", "target"])["n"]
    assert images_of_ri["ft", "imagenet_a"] == 675
    # Cartoon's 100 sources are Drawing's, so nothing of Drawing is left; C has one source, of 75
    # images.
    assert images_of_ri["ft", "imagenet_cartoon"] in (500, 575)
    rows = imagenet.rows("none/pretrained")
    sources = rows.groupby("dataset", observed=True)["source_id"].agg(set)
    assert sources["imagenet_cartoon"] == sources["imagenet_drawing"] == sources["imagenet_val"]
