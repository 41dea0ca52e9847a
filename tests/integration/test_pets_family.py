"""The family of docs/families.md with photos of some of ImageNet's classes."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from rib.catalog.label_space import imagenet_wnids
from tiny.projects import family as tiny_family
from tiny.projects.project import ROOT, Project, copy_project, rows_of

pytestmark = pytest.mark.thorough

# A small network in place of the page's, which would be downloaded.
CHOICES = ("catalog=[mine,pets]", "models=[tiny_cnn]")
CLASSES = ("n02088364", "n02123045")
PHOTOS_OF_CLASS = 8  # and as many drawings made from them
OTHERS_OF_CLASS = 3  # sketches, and toys
PROXY_OF_CLASS = 5
ROWS = "results/pets/paper/evaluate/tiny_cnn/none/pretrained/all/0/pets.parquet"
# Images of each dataset that are evaluated.
EVALUATED = {
    "pet_photos": len(CLASSES) * (PHOTOS_OF_CLASS - PROXY_OF_CLASS),
    "pet_drawings": len(CLASSES) * (PHOTOS_OF_CLASS - PROXY_OF_CLASS),
    "pet_sketches": len(CLASSES) * OTHERS_OF_CLASS,
    "pet_toys": len(CLASSES) * OTHERS_OF_CLASS,
}


def picture(rng, kind):
    """An encoded image of noise."""
    pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind)
    return encoded.getvalue()


def write_family(project):
    """Write the files of the page, and images in the folders that it names."""
    page = (ROOT / "docs/families.md").read_text()
    text = re.search(r"^## Photos of ImageNet's classes\n(.*?)^## ", page, re.S | re.M)[1]
    blocks = re.findall(r"^`(pets/[\w/.]+)`:\n\n```yaml\n(.*?)^```$", text, re.S | re.M)
    assert [path for path, _ in blocks] == ["pets/families/pets.yaml", "pets/datasets.yaml"]
    for path, content in blocks:
        file = project.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert re.findall("^snakemake (.*)$", text, re.M) == ["--config catalog=pets family=pets"]
    rng = np.random.default_rng(0)
    for name, ending, number_of_images in (
        ("photos", "jpg", PHOTOS_OF_CLASS),
        ("drawings", "png", PHOTOS_OF_CLASS),
        ("sketches", "jpg", OTHERS_OF_CLASS),
        ("toys", "jpg", OTHERS_OF_CLASS),
    ):
        assert f"pets/images/{name}/" in text
        for wnid in CLASSES:
            folder = project.folder / f"pets/images/{name}/{wnid}"
            folder.mkdir(parents=True)
            for number in range(number_of_images):
                kind = {"jpg": "JPEG", "png": "PNG"}[ending]
                (folder / f"pet{number}.{ending}").write_bytes(picture(rng, kind))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the family's entries and images, in which nothing has run."""
    folder = copy_project(tmp_path_factory.mktemp("pets") / "project")
    tiny_family.make(folder / "mine")  # for its network
    project = Project(folder, family="pets")
    write_family(project)
    return project


def evaluated_images(plan):
    """Images in the plan's line on evaluation."""
    return int(re.search(r"^Evaluation ([\d,]+) images", plan, re.M)[1].replace(",", ""))


def test_the_plan_knows_what_the_run_evaluates(project):
    networks = 1 + 2 * 3  # the pretrained one, and three methods on two targets
    plan = project.rib("plan", config=CHOICES)
    assert evaluated_images(plan) == networks * sum(EVALUATED.values())
    # and the command of the page, with its own network, plans as many runs
    trained_methods, targets = 2, 2
    assert project.planned(config=("catalog=pets",))["finetune"] == trained_methods * targets


def test_some_of_imagenets_classes_become_a_page(project):
    # when
    project.snakemake("--cores", "2", config=CHOICES)
    # then the reference and its drawings are left out, and labels are ImageNet's
    rows = rows_of(project.folder / ROWS)
    assert rows["dataset"].value_counts().to_dict() == EVALUATED
    outputs = [imagenet_wnids().index(wnid) for wnid in CLASSES]
    assert sorted(set(rows["label"])) == outputs
    sources = rows.set_index("dataset")["source_id"]
    assert set(sources["pet_photos"]) == set(sources["pet_drawings"])
    assert "</html>" in (project.folder / "reports/pets/index.html").read_text()
    assert "Nothing to be done" in project.snakemake("-n", config=CHOICES)


def test_without_the_setting_a_class_without_images_is_an_error_that_names_it(project):
    project.edit("pets/datasets.yaml", "{partial: true}", "{partial: false}")
    printed = project.snakemake("--cores", "2", "--until", "prepare", config=CHOICES, check=False)
    project.edit("pets/datasets.yaml", "{partial: false}", "{partial: true}")
    assert re.search(r"pet_photos: .*partial: true", printed), printed
