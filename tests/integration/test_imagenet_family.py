"""The ImageNet family end to end: small archives of the true layouts, through the workflow.

The archives come from a server, and the workflow is the real one. Every class has a picture whose
colour tells its index, so that each label can be checked image by image.
"""

import io
import json
import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rib.base.files import sha256
from rib.catalog.catalog import Catalog
from rib.catalog.label_space import read_real_labels, read_timm_list
from rib.data.dataset import PreparedDataset
from rib.schema.geometry import Geometry
from tiny.data.photos import WNIDS, devkit, encrypted, index_of, jpeg, tar, zipped
from tiny.projects import family
from tiny.projects.project import Project, copy_project, rows_of
from tiny.servers.files import serve

pytestmark = pytest.mark.slow

SMALL = Geometry(size=32, crop_pct=1.0, interpolation="bicubic")
PASSWORD = "open sesame"
CLASSES = 1000
PARTS_OF_C = ("noise", "blur", "weather", "digital")  # in which it is evaluated
PER_CLASS = 2  # val's images of each class, and so Cartoon's and Drawing's
IMAGES_OF_VAL = CLASSES * PER_CLASS
CLASSES_OF_C = (2, 10, 101)
SEVERITIES = (1, 2, 3, 4, 5)
# Images of each dataset.
COUNTS = {
    "imagenet_val": IMAGES_OF_VAL,
    "imagenet_v2": CLASSES,
    "imagenet_a": 200,
    "imagenet_r": 200,
    "imagenet_sketch": CLASSES,
    "objectnet": 113,
    "imagenet_cartoon": IMAGES_OF_VAL,
    "imagenet_drawing": IMAGES_OF_VAL,
    "imagenet_c": 15 * len(SEVERITIES) * len(CLASSES_OF_C),
}
# In pixels. Pictures of other widths are other photos; datasets with two of a class take the next
# width, too.
EXTRA_WIDTH = {
    "imagenet_val": 0,
    "imagenet_v2": 2,
    "imagenet_a": 3,
    "imagenet_r": 4,
    "imagenet_sketch": 5,
    "imagenet_cartoon": 6,
    "imagenet_drawing": 8,
    "imagenet_c": 10,
}
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


# Archives


@cache
def picture(index, extra_width=0):
    """A picture of a class; one of another width is another photo."""
    return jpeg(index, size=(12 + extra_width, 10))


def val_name(index, repetition):
    """The file name of a validation image: the images of all classes follow one another."""
    number = repetition * CLASSES + index + 1
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def photos(top, indices, extra_width):
    """A photo of each of some classes, in folders of classes below `top`."""
    files = {}
    for index in indices:
        wnid = WNIDS[index]
        files[f"{top}{wnid}/{wnid}_0.JPEG"] = picture(index, extra_width)
    return files


def made_from_val(top, extra_width):
    """Pictures made from the validation images, under their names."""
    files = {}
    for index in range(CLASSES):
        for repetition in range(PER_CLASS):
            name = f"{top}{WNIDS[index]}/{val_name(index, repetition)}"
            files[name] = picture(index, extra_width + repetition)
    return files


def with_red_border(photo):
    """A PNG of a photo with the border of two pixels that ObjectNet's images have."""
    image = Image.new("RGB", (20, 18), (255, 0, 0))
    image.paste(Image.open(io.BytesIO(photo)).resize((16, 14)), (2, 2))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def objectnet(label_space):
    """One photo in the folder of each of ObjectNet's classes."""
    files = {"objectnet-1.0/mappings/folder_to_objectnet_label.json": b"{}"}
    for key, (first_index, *_) in zip(label_space.keys, label_space.indices, strict=True):
        files[f"objectnet-1.0/images/{key}/1.png"] = with_red_border(picture(first_index))
    return files


def write_val(folder):
    """The validation images, and the development kit that says their classes."""
    files = {}
    # The kit's class numbers run against the indices.
    class_numbers = []
    for repetition in range(PER_CLASS):
        for index in range(CLASSES):
            extra_width = EXTRA_WIDTH["imagenet_val"] + repetition
            files[val_name(index, repetition)] = picture(index, extra_width)
            class_numbers.append(str(CLASSES - index))
    tar(folder / "ILSVRC2012_img_val.tar", files)
    devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", "\n".join(class_numbers))


def write_v2(folder):
    """ImageNet-V2, whose folders are class indices."""
    top = "imagenetv2-matched-frequency-format-val"
    extra_width = EXTRA_WIDTH["imagenet_v2"]
    files = {f"{top}/{index}/x.jpeg": picture(index, extra_width) for index in range(CLASSES)}
    tar(folder / "imagenetv2-matched-frequency.tar.gz", files)


def write_part_of_classes(folder, letter):
    """ImageNet-A or -R, which have 200 of the classes."""
    top = f"imagenet-{letter}/"
    indices = [index for (index,) in read_timm_list(f"imagenet_{letter}").indices]
    files = photos(top, indices, EXTRA_WIDTH[f"imagenet_{letter}"])
    tar(folder / f"imagenet-{letter}.tar", {f"{top}README.txt": b"x", **files})


def write_c(folder, corruptions):
    """ImageNet-C, whose corruptions are in four archives."""
    corruptions_of_archive = {
        "noise": corruptions[:3],
        "blur": corruptions[3:7],
        "weather": corruptions[7:11],
        "digital": corruptions[11:],
    }
    for archive, corruptions_in_it in corruptions_of_archive.items():
        files = {}
        for corruption in corruptions_in_it:
            for severity in SEVERITIES:
                for index in CLASSES_OF_C:
                    name = f"{corruption}/{severity}/{WNIDS[index]}/{val_name(index, 0)}"
                    files[name] = picture(index, EXTRA_WIDTH["imagenet_c"])
        tar(folder / f"{archive}.tar", files)


def write_archives(folder, corruptions, objectnets_label_space):
    """Write small archives under their published names; gives them by name."""
    write_val(folder)
    write_v2(folder)
    write_part_of_classes(folder, "a")
    write_part_of_classes(folder, "r")
    sketches = photos("sketch/", range(CLASSES), EXTRA_WIDTH["imagenet_sketch"])
    zipped(folder / "ImageNet-Sketch.zip", sketches)
    encrypted(folder / "objectnet-1.0.zip", objectnet(objectnets_label_space), PASSWORD)
    cartoons = made_from_val("imagenet-cartoon/", EXTRA_WIDTH["imagenet_cartoon"])
    tar(folder / "imagenet-cartoon.tar.gz", cartoons, "w:gz")
    drawings = made_from_val("datasets/imagenet-drawing/", EXTRA_WIDTH["imagenet_drawing"])
    tar(folder / "imagenet-drawing.tar.gz", drawings, "w:gz")
    write_c(folder, corruptions)
    return {path.name: path for path in folder.iterdir()}


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


def point_at_archives(entry, archives, address):
    """Let the entry of a dataset state what the archives are, and where they are served.

    Args:
        archives: by file name.
    """
    for source in [entry.get("source"), *entry.get("sources", [])]:
        if isinstance(source, dict) and source.get("file") in archives:
            archive = archives[source["file"]]
            source["digest"] = f"sha256:{sha256(archive)}"
            source["size"] = archive.stat().st_size
            if source["kind"] == "http":
                source["urls"] = [f"{address}/missing", f"{address}/{archive.name}"]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory, pytestconfig):
    """The family's run on small archives."""
    # given a catalogue with smaller datasets, and archives
    folder = tmp_path_factory.mktemp("imagenet")
    project = Project(copy_project(folder / "project"), family="imagenet")
    family.make(project.folder / "mine")
    project.edit(
        "workflow/catalog/families/imagenet.yaml", "images_per_class: 5", "images_per_class: 1"
    )
    catalog = Catalog([pytestconfig.rootpath / "workflow/catalog"])
    datasets_file = project.folder / "workflow/catalog/datasets.yaml"
    datasets = yaml.safe_load(datasets_file.read_text())
    served = folder / "served"
    served.mkdir()
    archives = write_archives(
        served,
        corruptions=datasets["imagenet_c"]["settings"]["corruptions"],
        objectnets_label_space=catalog.label_space(catalog.datasets["objectnet"]),
    )
    with serve(served) as address:
        for name, entry in datasets.items():
            point_at_archives(entry, archives, address)
            if name in COUNTS:
                entry["images"] = COUNTS[name]
        datasets_file.write_text(yaml.safe_dump(datasets, sort_keys=False))
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
