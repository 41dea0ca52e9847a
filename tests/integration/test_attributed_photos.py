"""A run on photos whose authors must be named, of the photos family's layout and split."""

import csv
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from rib.base.files import sha256
from tiny.data.photos import WNIDS, tar
from tiny.projects import family as tiny_family
from tiny.projects.project import Project, copy_project, rows_of

pytestmark = pytest.mark.thorough

AUTHORS = 8
CLASSES_OF_AUTHOR = (0, 4)  # author 3 has the classes 3 and 7
PHOTOS_OF_CLASS = 3  # of each author
CHOICES = (
    "catalog=[mine,street]",
    "models=[tiny_cnn]",
    "protocol=held_out",
    "split={train: 0.5, select: 0.2}",
)


def archive_of_photos(path):
    """Write an archive with photos of noise, and their list, as the competition has them."""
    rng = np.random.default_rng(0)
    lines = []
    files = {}
    for author in range(AUTHORS):
        for number in range(PHOTOS_OF_CLASS * len(CLASSES_OF_AUTHOR)):
            index = author + CLASSES_OF_AUTHOR[number % len(CLASSES_OF_AUTHOR)]
            photo_id = f"a{author}c{index}n{number}"
            lines.append(
                {
                    "ImageId": photo_id,
                    "TrueLabel": index + 1,
                    "OriginalLandingURL": f"https://example.org/{photo_id}",
                    "License": "https://creativecommons.org/licenses/by/2.0/",
                    "Author": f"<b>Author {author}</b>",  # which a page must not take for a tag
                    "AuthorProfileURL": f"https://example.org/people/{author}",
                }
            )
            encoded = io.BytesIO()
            pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(encoded, "PNG")
            files[f"dataset/images/{photo_id}.png"] = encoded.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    tar(path, {"dataset/images.csv": text.getvalue().encode(), **files})
    return lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project with a finished run, and the lines of its list of photos."""
    folder = copy_project(tmp_path_factory.mktemp("street") / "project")
    tiny_family.make(folder / "mine")  # for its network
    street = folder / "street"
    (street / "families").mkdir(parents=True)
    (street / "archives").mkdir()
    (street / "classes").mkdir()
    classes = WNIDS[: AUTHORS + max(CLASSES_OF_AUTHOR)]
    (street / "classes/street.csv").write_text("\n".join(["wnid", *classes]) + "\n")
    archive = street / "archives/street.tar"
    lines = archive_of_photos(archive)
    source = {
        "kind": "file",
        "path": "archives/street.tar",
        "file": archive.name,
        "digest": f"sha256:{sha256(archive)}",
        "size": archive.stat().st_size,
    }
    shared = {
        "family": "street",
        "source_group": "street",
        "evaluation_group": "street",
        "publishable": True,
        "licence": "CC BY 2.0",
        "origin": "their authors",
    }
    layout = {"layout": "nips2017", "settings": {}}
    datasets = {
        "street": {
            **shared,
            "label": "Street",
            "role": "in_distribution",
            "source": source,
            "layout": "nips2017",
        }
    }
    for rendition in ("edges", "drawing", "tilted"):
        datasets[f"street_{rendition}"] = {
            **shared,
            "label": rendition.title(),
            "archives_of": "street",
            "layout": "renditions_of",
            "settings": {"photos": layout, "rendition": rendition},
        }
    (street / "datasets.yaml").write_text(yaml.safe_dump(datasets))
    family = {
        "title": "Street",
        "description": "made-up photos for tests",
        "classes": {"file": "street.csv", "format": "wnids"},
        "split_by": "object",
        "fit_threshold": "none",
        "recipes": {"paper": {"ft": {"lr": 0.05}}},  # predictions must change
        "defaults": {
            "models": ["tiny_cnn"],
            "methods": ["ft", "wise_ft"],
            "targets": ["street_edges"],
            "image_size": 160,
            "epochs": 3,
            "batch_size": 8,
        },
    }
    (street / "families/street.yaml").write_text(yaml.safe_dump(family))
    project = Project(folder, family="street")
    project.snakemake("--cores", "2", config=CHOICES)
    return project, lines


def test_no_photo_of_an_author_who_is_trained_on_is_tested_in_any_rendition(finished):
    project, lines = finished
    author_of = {line["ImageId"]: line["AuthorProfileURL"] for line in lines}
    results = project.folder / "results/street/held_out"
    parts = {}
    for path in sorted(results.glob("split/*/*.parquet")):
        table = pq.read_table(path).to_pydict()
        parts[path.parent.name] = dict(zip(table["source_id"], table["part"], strict=True))
    assert len(parts) == 4
    assert all(part == parts["street"] for part in parts.values())
    authors = {"train": set(), "select": set(), "test": set()}
    for source, part in parts["street"].items():
        authors[part].add(author_of[source.removeprefix("street/")])
    assert all(authors.values())
    assert sum(map(len, authors.values())) == AUTHORS
    rows = rows_of(
        results / "evaluate/tiny_cnn/street_edges/ft/all/0/street.parquet",
    )
    tested = {author_of[source.removeprefix("street/")] for source in rows["source_id"]}
    assert tested == authors["test"]


def test_each_shown_photo_has_its_author_page_and_licence_beside_it(finished):
    project, lines = finished
    report = project.folder / "reports/street_held_out"
    credits = {
        f"{line['Author']}, {line['OriginalLandingURL']}, CC BY 2.0": line["ImageId"]
        for line in lines
    }
    # the images of cells, which the page shows with the text beside
    shown = json.loads((report / "tables/cells.json").read_text())["images"]
    assert shown
    for *_, credit in shown:
        assert "cropped, resized, rendered" in credit
        assert any(attribution in credit for attribution in credits)
    # the figure of examples
    table = next(report.rglob("examples.csv")).read_text()
    for row in csv.DictReader(io.StringIO(table)):
        assert credits[row["attribution"]] == row["image_id"]
    # and what comes from the list is text on the page
    page = (report / "index.html").read_text()
    assert "<b>Author" not in page


def test_ri_is_stated_apart_for_classes_that_training_showed_and_for_others(finished):
    project, lines = finished
    label_of = {line["ImageId"]: line["TrueLabel"] - 1 for line in lines}
    results = project.folder / "results/street/held_out"
    (split,) = results.glob("split/street_edges/*.parquet")
    table = pq.read_table(split).to_pydict()
    trained = {
        label_of[source.removeprefix("street/")]
        for source, part in zip(table["source_id"], table["part"], strict=True)
        if part == "train"
    }
    rows = rows_of(results / "evaluate/tiny_cnn/none/pretrained/all/0/street.parquet")
    counted = rows[rows["dataset"].isin(["street_drawing", "street_tilted"])]
    seen = counted["label"].isin(trained)
    assert 0 < seen.sum() < len(seen)
    ri = (project.folder / "reports/street_held_out/tables/ri.csv").read_text()
    for row in csv.DictReader(io.StringIO(ri)):
        assert float(row["n_seen"]) == seen.sum()
        assert float(row["n_unseen"]) == (~seen).sum()
