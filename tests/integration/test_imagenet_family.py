"""The ImageNet family end to end: small archives of the true layouts, through the workflow.

The archives come from a server, and the workflow is the real one. Every class has a picture whose
colour tells its index, so that each label can be checked image by image.
"""

import io
import json
import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from integration.conftest import serve
from rib.base.files import sha256
from rib.config.geometry import Geometry
from rib.config.label_space import imagenet_wnids, read_real_labels, read_timm_list
from rib.data.prepared import PreparedDataset
from tiny import family
from tiny.photos import WNIDS, devkit, encrypted, index_of, jpeg, tar, zipped
from tiny.project import Project, copy_project, rows_of

pytestmark = pytest.mark.thorough

SMALL = Geometry(size=32, crop_pct=1.0, interpolation="bicubic")
PASSWORD = "open sesame"
PER_CLASS = 2  # val's images of each class, and so Cartoon's and Drawing's
CHOICES = (
    *(
        "models=[tiny_cnn]",
        "image_size=32",
        "methods=[ft,replay]",
        "training={epochs: 1, batch_size: 64}",
    ),
    # of the family's two recipes and sizes the paper's: the targets here have fewer than 1000
    # images
    *("method_settings={ft: {recipe: paper}}", "train_subset=[all]"),
)


@cache
def picture(index, wider=0):
    """A picture of a class; one of another width is another photo."""
    return jpeg(index, size=(12 + wider, 10))


def val_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def photos(top, indices, wider):
    return {f"{top}{WNIDS[i]}/{WNIDS[i]}_0.JPEG": picture(i, wider) for i in indices}


def of_val(top, wider):
    """Pictures made from the validation images, under their names."""
    return {
        f"{top}{WNIDS[i]}/{val_name(n * 1000 + i + 1)}": picture(i, wider + n)
        for i in range(1000)
        for n in range(PER_CLASS)
    }


def objectnet(folders):
    files = {}
    for key, indices in folders.items():
        image = Image.new("RGB", (20, 18), (255, 0, 0))
        image.paste(Image.open(io.BytesIO(picture(indices[0]))).resize((16, 14)), (2, 2))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files[f"objectnet-1.0/images/{key}/1.png"] = buffer.getvalue()
    return {**files, "objectnet-1.0/mappings/folder_to_objectnet_label.json": b"{}"}


def archives(folder, datasets, spaces):
    """Small archives under their published names."""
    corruptions = datasets["imagenet_c"]["settings"]["corruptions"]
    ends = {"noise": (0, 3), "blur": (3, 7), "weather": (7, 11), "digital": (11, None)}
    parts = {part: corruptions[slice(*end)] for part, end in ends.items()}
    numbers = "\n".join(str(1000 - (number % 1000)) for number in range(1000 * PER_CLASS))
    tar(
        folder / "ILSVRC2012_img_val.tar",
        {val_name(n + 1): picture(n % 1000, n // 1000) for n in range(1000 * PER_CLASS)},
    )
    devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", numbers)
    top = "imagenetv2-matched-frequency-format-val"
    tar(
        folder / "imagenetv2-matched-frequency.tar.gz",
        {f"{top}/{i}/x.jpeg": picture(i, 2) for i in range(1000)},
    )
    for wider, name in enumerate(("a", "r"), start=3):
        indices = [row[0] for row in read_timm_list(f"imagenet_{name}").indices]
        files = photos(f"imagenet-{name}/", indices, wider)
        tar(folder / f"imagenet-{name}.tar", {f"imagenet-{name}/README.txt": b"x", **files})
    zipped(folder / "ImageNet-Sketch.zip", photos("sketch/", range(1000), 5))
    encrypted(
        folder / "objectnet-1.0.zip",
        objectnet(dict(zip(spaces.keys, spaces.indices, strict=True))),
        PASSWORD,
    )
    tar(folder / "imagenet-cartoon.tar.gz", of_val("imagenet-cartoon/", 6), "w:gz")
    tar(folder / "imagenet-drawing.tar.gz", of_val("datasets/imagenet-drawing/", 8), "w:gz")
    for part, names in parts.items():
        files = {
            f"{c}/{s}/{WNIDS[i]}/{val_name(i + 1)}": picture(i, 10)
            for c in names
            for s in range(1, 6)
            for i in (2, 10, 101)
        }
        tar(folder / f"{part}.tar", files)
    return {path.name: path for path in folder.iterdir()}


COUNTS = {
    "imagenet_val": 2000,
    "imagenet_v2": 1000,
    "imagenet_a": 200,
    "imagenet_r": 200,
    "imagenet_sketch": 1000,
    "objectnet": 113,
    "imagenet_cartoon": 2000,
    "imagenet_drawing": 2000,
    "imagenet_c": 225,
}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory, pytestconfig):
    """A project whose catalogue points at the server, and its run."""
    from rib.config.catalog import Catalog

    place = tmp_path_factory.mktemp("imagenet")
    project = Project(copy_project(place / "project"), family="imagenet")
    family.make(project.folder / "mine")
    catalog = Catalog([pytestconfig.rootpath / "workflow/catalog"])
    path = project.folder / "workflow/catalog/datasets.yaml"
    datasets = yaml.safe_load(path.read_text())
    (place / "served").mkdir()
    made = archives(place / "served", datasets, catalog.label_space(catalog.datasets["objectnet"]))
    with serve(place / "served") as address:
        for name, entry in datasets.items():
            for source in [entry.get("source"), *entry.get("sources", [])]:
                has_archive = isinstance(source, dict) and source.get("file") in made
                if has_archive:
                    archive = made[source["file"]]
                    source.update(digest=f"sha256:{sha256(archive)}", size=archive.stat().st_size)
                    if source["kind"] == "http":
                        source["urls"] = [f"{address}/missing", f"{address}/{source['file']}"]
            if name in COUNTS:
                entry["images"] = COUNTS[name]
        path.write_text(yaml.safe_dump(datasets, sort_keys=False))
        entry = project.folder / "workflow/catalog/families/imagenet.yaml"
        entry.write_text(entry.read_text().replace("images_per_class: 5", "images_per_class: 1"))
        config = ("catalog=mine", *CHOICES, "targets=[imagenet_a]")
        # What has to be fetched by hand is asked for; then it lies where the user keeps archives.
        printed = project.snakemake("--cores", "2", "--keep-going", config=config, check=False)
        config_here = (*config, f"archives={place / 'served'}")
        printed += project.snakemake(
            "--cores", "2", config=config_here, OBJECTNET_PASSWORD=PASSWORD
        )
    return project, config, printed


def test_what_is_gated_is_asked_for_with_its_terms(imagenet):
    printed = imagenet[2]
    assert (
        re.search("imagenet_val: ILSVRC2012_img_val.tar .*non-commercial", printed)
        and "`archives`" in printed
    )
    assert re.search("objectnet-1.0.zip is encrypted.* OBJECTNET_PASSWORD", printed)


@pytest.mark.parametrize("name", COUNTS)
def test_every_image_has_its_label(imagenet, name):
    (folder,) = (imagenet[0].folder / f"results/imagenet/prepare/{name}").iterdir()
    dataset = PreparedDataset.open(folder, name, SMALL)
    assert len(dataset.labels) == COUNTS[name]
    assert (folder.name == "encoded") == (name == "imagenet_c")
    pixels = dataset.images[np.arange(len(dataset.labels))]
    for label, image in zip(dataset.labels, pixels, strict=True):
        assert index_of(image) in dataset.space.indices[label], dataset.space.names[label]


def test_the_pretraining_proxy_is_scored_nowhere(imagenet):
    """One of val's two sources of each class is the proxy.

    The other half of val, Cartoon, Drawing and C stays.
    """
    results = imagenet[0].folder / "results/imagenet/paper"
    scored = results / "evaluate/tiny_cnn/none/pretrained/all/0"
    rows = pd.concat([rows_of(scored / f"{group}.parquet") for group in ("imagenet", "imagenet_c")])
    sources = rows.groupby("dataset", observed=True)["source_id"].agg(lambda ids: frozenset(ids))
    assert len(sources["imagenet_val"]) == 1000
    assert sources["imagenet_val"] == sources["imagenet_cartoon"] == sources["imagenet_drawing"]
    assert sources["imagenet_c"] <= sources["imagenet_val"]
    assert rows["dataset"].value_counts()["imagenet_v2"] == 1000
    labels = rows[rows["dataset"] == "imagenet_val"]["label"]
    assert labels.is_unique and len(labels) == 1000, "class-balanced"
    record = json.loads(
        (results / "finetune/tiny_cnn/imagenet_a/replay/all/0/provenance.json").read_text()
    )
    assert any("/prepare/imagenet_val/" in path for path in record["inputs"])
    assert record["cfg"]["view"]["images_per_class"] == 1


def test_val_is_evaluated_and_no_part_of_ri(imagenet):
    tables = imagenet[0].folder / "reports/imagenet/tables"
    accuracy = pd.read_csv(tables / "accuracy.csv")
    wide = accuracy.pivot_table(index=["method", "target"], columns="dataset", values="accuracy")
    ood = [name for name in COUNTS if name not in ("imagenet_val", "imagenet_a")]
    change = wide.loc[("ft", "imagenet_a"), ood] - wide.loc[("pretrained", "none"), ood]
    ri = pd.read_csv(tables / "ri.csv").set_index(["method", "target"])
    assert ri.loc[("ft", "imagenet_a"), "ri"] == pytest.approx(change.mean(), abs=1e-5)
    (conditions,) = set(accuracy["conditions"])
    assert conditions == (
        "protocol paper; pretraining proxy: 1 images per class of IN-1K val, "
        "excluded from IN-1K val, IN-Cartoon, "
        "IN-Drawing, IN-C"
    )


def test_val_is_scored_with_its_real_labels_too(imagenet):
    folder = imagenet[0].folder
    scores = pd.read_csv(folder / "reports/imagenet/tables/scores.csv").set_index(
        ["method", "dataset"]
    )
    assert (
        scores.drop("imagenet_val", level="dataset")[["real_before", "n_real"]]
        .isna()
        .all(axis=None)
    )
    known = read_real_labels()
    for method, run in (("pretrained", "none/pretrained"), ("ft", "imagenet_a/ft")):
        (path,) = folder.glob(f"results/imagenet/paper/evaluate/*/{run}/all/0/imagenet.parquet")
        rows = rows_of(path)
        rows = rows[rows["dataset"] == "imagenet_val"]
        answers = [known[int(name[-13:-5]) - 1] for name in rows["image_id"]]
        right = [
            label in own for label, own in zip(rows["prediction"], answers, strict=True) if own
        ]
        line = scores.loc[("ft", "imagenet_val")]
        assert line["n_real"] == len(right) < line["n"]
        column = "real_before" if method == "pretrained" else "real_after"
        assert line[column] == pytest.approx(100 * np.mean(right), abs=1e-5)


def test_effective_robustness_is_the_height_above_the_published_models_line(imagenet):
    tables = imagenet[0].folder / "reports/imagenet/tables"
    table, lines = (
        pd.read_csv(tables / f"{name}.csv") for name in ("effective_robustness", "baseline_lines")
    )
    assert set(lines["dataset"]) == {"imagenet_v2", "imagenet_sketch"} and set(lines["models"]) == {
        39
    }
    assert len(table) == 2 * 2 and (tables.parent / "figures/effective_robustness.png").is_file()
    accuracy = pd.read_csv(tables / "accuracy.csv").set_index(["method", "target", "dataset"])[
        "accuracy"
    ]
    line = lines.set_index("dataset").loc["imagenet_v2"]
    run = table.query(
        "method == 'ft' and target == 'imagenet_a' and dataset == 'imagenet_v2'"
    ).iloc[0]
    places = (
        np.clip(accuracy["ft", "imagenet_a", name], 0.05, 99.95)
        for name in ("imagenet_val", "imagenet_v2")
    )
    inside, outside = places  # a thousand images each, of which none right counts as half an image
    expected = line["intercept"] + line["slope"] * np.log(inside / (100 - inside))
    assert run["rho_after"] == pytest.approx(outside - 100 / (1 + np.exp(-expected)), abs=1e-4)


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do_and_a_budget_makes_only_what_depends_on_it(imagenet):
    project, config, _ = imagenet
    assert "Nothing to be done" in project.snakemake("-n", config=config)
    small = (
        *config,
        "targets=[imagenet_a,imagenet_cartoon]",
        "budget={max_images_per_dataset: 100}",
    )
    planned = project.planned(config=small)
    assert "prepare" not in planned and planned["finetune"] == 4 and planned["evaluate_run"] == 10
    project.snakemake("tables", "--cores", "2", config=(*small, "leak_free=true"))
    tables = project.folder / "reports/imagenet/tables"
    accuracy = pd.read_csv(tables / "accuracy.csv")
    assert (
        set(accuracy["n"]) == {75, 100}
        and "at most 100 images per dataset" in accuracy["conditions"][0]
    )
    ri = pd.read_csv(tables / "ri.csv").set_index(["method", "target"])["n"]
    # Cartoon's 100 sources are Drawing's, so nothing of Drawing is left; C has one source, of 75
    # images.
    assert ri["ft", "imagenet_a"] == 675 and ri["ft", "imagenet_cartoon"] in (500, 575)
    scored = project.folder / "results/imagenet/paper/evaluate/tiny_cnn/none/pretrained/all/0"
    index = rows_of(scored / "imagenet.parquet")
    chosen = {
        name: set(part["source_id"]) for name, part in index.groupby("dataset", observed=True)
    }
    assert chosen["imagenet_cartoon"] == chosen["imagenet_drawing"] == chosen["imagenet_val"]


def test_wnids_are_timms():
    assert tuple(WNIDS) == imagenet_wnids()
