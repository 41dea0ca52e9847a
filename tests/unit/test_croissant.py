"""Descriptions of prepared datasets: what the Croissant specification asks for, and digests."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.records.croissant import describe_datasets
from rib.records.settings import DescribedDataset

FINISHED = Path(__file__).parents[1] / "fixtures/finished_project/results/tiny/prepare"
PREPARED = Path("results/tiny/prepare")
# The specification, version 1.0: "Dataset-level information" and "Resources".
REQUIRED_OF_DATASET = {
    "@context",
    "@type",
    "conformsTo",
    "description",
    "license",
    "name",
    "url",
    "creator",
    "datePublished",
}
REQUIRED_OF_FILE = {"@type", "@id", "name", "contentUrl", "encodingFormat", "sha256"}


def described(name):
    return DescribedDataset(
        folder=str(PREPARED / name),
        label="Green",
        family="photos of one colour",
        licence="MIT",
        origin="nobody",
        url="https://example.org/green",
    )


@pytest.fixture
def description(tmp_path, monkeypatch):
    """The description of a prepared dataset of a finished project, in a copy of it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FINISHED, PREPARED)
    datasets = {name: described(name) for name in ("green", "not_prepared")}
    (file,) = describe_datasets(datasets, Path("reports/tiny"))
    assert file == Path("reports/tiny/croissant/green.json")
    return file, json.loads(file.read_text())


def test_a_description_has_what_the_specification_requires(description):
    _, dataset = description
    assert dataset.keys() >= REQUIRED_OF_DATASET and dataset["@type"] == "sc:Dataset"
    assert dataset["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    identifiers = [file["@id"] for file in dataset["distribution"]]
    for record_set in dataset["recordSet"]:
        identifiers += [record_set["@id"], *(field["@id"] for field in record_set["field"])]
        assert record_set["@type"] == "cr:RecordSet" and record_set["field"]
    assert len(set(identifiers)) == len(identifiers)
    terms = {term for term in dataset["@context"] if not term.startswith("@")}
    assert {"conformsTo", "recordSet", "field", "dataType", "source", "extract"} <= terms


def test_a_description_states_the_dataset_its_origin_and_where_it_is_from(description):
    _, dataset = description
    stated = described("green")
    assert dataset["name"] == "green"
    assert dataset["license"] == stated.licence
    assert dataset["url"] == stated.url
    assert dataset["creator"]["name"] == stated.origin
    assert dataset["citeAs"] == stated.origin
    (record_set,) = dataset["recordSet"]
    assert {field["@type"] for field in record_set["field"]} == {"cr:Field"}


def test_files_are_where_it_says_with_their_digests_and_sizes(description):
    file, dataset = description
    names = set()
    for entry in dataset["distribution"]:
        assert entry.keys() >= REQUIRED_OF_FILE and entry["@type"] == "cr:FileObject"
        path = file.parent / entry["contentUrl"]
        names.add(path.name)
        assert path.resolve() == Path(entry["@id"]).resolve()
        if path.is_file():  # the fixture has no pixels
            assert entry["sha256"] == sha256(path)
            assert entry["contentSize"] == f"{path.stat().st_size} B"
    assert names == {"images.npy", "index.parquet", "classes.json"}


def test_fields_are_the_columns_of_the_index(description):
    _, dataset = description
    files = {entry["@id"] for entry in dataset["distribution"]}
    for record_set in dataset["recordSet"]:
        columns = {}
        for field in record_set["field"]:
            assert field["source"]["fileObject"]["@id"] in files
            columns[field["source"]["extract"]["column"]] = field["dataType"]
        (index,) = {field["source"]["fileObject"]["@id"] for field in record_set["field"]}
        assert list(columns) == pq.read_schema(index).names
        assert columns["label"] == "sc:Integer" and columns["image_id"] == "sc:Text"


def test_mlcroissant_accepts_a_description(description):
    """Run where somebody has installed mlcroissant, which needs rdflib and more."""
    mlcroissant = pytest.importorskip("mlcroissant")
    file, _ = description
    assert mlcroissant.Dataset(jsonld=str(file)).metadata.name == "green"


def test_a_damaged_record_is_named(description):
    (record,) = (PREPARED / "green").glob("*/provenance.json")
    record.write_text("{}")
    with pytest.raises(UserError, match=f"{record} is not readable as a record; delete"):
        describe_datasets({"green": described("green")}, Path("reports/tiny"))


def test_only_images_that_may_be_passed_on_are_described(catalog):
    """ImageNet, and all that is made from it, may not be; nor what may not be shown or tuned on."""
    for entry in catalog.datasets.values():
        if entry.family == "imagenet" or not entry.publishable or entry.tuning:
            assert entry.redistributable is None, entry.name
