"""The Process Run Crate beside a page: every entity resolves, and each action is its record."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import pytest

from rib.records import provenance
from rib.reporting.crate import write_crate
from tiny.bundles import make
from tiny.descriptions import description

FOLDER = Path("reports/tiny")


@dataclass(frozen=True)
class Crate:
    """A crate, and the records that it was made from."""

    folder: Path  # of the page, to which ids of published files are relative
    entities: Mapping[str, dict]  # by id
    records: Mapping[str, Mapping]  # by path

    @property
    def root(self):
        """The entity of the published folder."""
        return self.entities["./"]

    def entities_of_type(self, kind):
        """Entities of a type, by id."""
        return {name: entity for name, entity in self.entities.items() if entity["@type"] == kind}

    def record_of(self, action):
        """The record of an action, given by its id, which is # and the path of the record."""
        return self.records[unquote(action).removeprefix("#")]


@pytest.fixture(scope="module")
def crate(tmp_path_factory):
    """The crate of a small project."""
    with pytest.MonkeyPatch.context() as patch:
        bundle = make(tmp_path_factory.mktemp("crate") / "project", {"ft": 0.1})
        patch.chdir(bundle.parent)
        about = {
            "family": {"title": "Tiny", "description": "invented"},
            "read": {"red": {"label": "R", "licence": "MIT"}},
        }
        file = FOLDER / "ro-crate-metadata.json"
        write_crate(
            records=[
                str(FOLDER / "tables/provenance.json"),
                str(FOLDER / "tables/comparison.provenance.json"),
            ],
            about=description(about),
            published=[str(path) for path in FOLDER.rglob("*.*")],
            folder=FOLDER,
            crate=file,
        )
        graph = json.loads(file.read_text())["@graph"]
        entities = {entity["@id"]: entity for entity in graph}
        assert len(entities) == len(graph), "ids are unique"
        records_of_jobs = provenance.below([Path("results"), FOLDER / "tables"])
        records = {str(path): provenance.read(path) for path in records_of_jobs}
        return Crate(bundle.parent / FOLDER, entities, records)


def references(content):
    """Ids that an entity, or what it contains, names."""
    if isinstance(content, dict):
        if content.keys() == {"@id"}:
            return [content["@id"]]
        return references(list(content.values()))
    if isinstance(content, list):
        ids = []
        for element in content:
            ids += references(element)
        return ids
    return []


def ids_of(references_of_entity):
    """The ids in a list of references."""
    return [reference["@id"] for reference in references_of_entity]


def digest_of(entity):
    """The SHA-256 in an entity's identifier (RFC 6920), as hex."""
    scheme, text = entity["identifier"].split(";")
    assert scheme == "ni:///sha-256"
    padding = "=" * (-len(text) % 4)
    return base64.urlsafe_b64decode(text + padding).hex()


def test_entities_resolve(crate):
    named_ids = set()
    for entity in crate.entities.values():
        named_ids.update(references(entity))
    assert named_ids - crate.entities.keys() == {"https://w3id.org/ro/crate/1.1"}


def test_the_root_is_a_dataset_that_follows_the_profile(crate):
    descriptor = crate.entities["ro-crate-metadata.json"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    root = crate.root
    assert root["@type"] == "Dataset"
    for key in ("name", "description", "license"):
        assert root[key]
    assert datetime.fromisoformat(root["datePublished"])
    profile = root["conformsTo"]["@id"]
    assert profile.startswith("https://w3id.org/ro/wfrun/process/")
    assert crate.entities[profile]["@type"] == "CreativeWork"


def test_each_file_is_a_part_and_lies_in_the_folder(crate):
    published = ids_of(crate.root["hasPart"])
    assert published
    assert set(published) == crate.entities_of_type("File").keys(), (
        "what is a File must be part of the crate"
    )
    for name in published:
        assert (crate.folder / unquote(name)).is_file()


def test_each_job_is_an_action_with_instrument_inputs_outputs_and_times(crate):
    actions = crate.entities_of_type("CreateAction")
    assert {unquote(name) for name in actions} == {f"#{path}" for path in crate.records}
    assert ids_of(crate.root["mentions"]) == list(actions)
    for name, action in actions.items():
        record = crate.record_of(name)
        tool = crate.entities[action["instrument"]["@id"]]
        assert tool["@type"] == "SoftwareApplication"
        assert tool["name"] == record["rule"]
        assert tool["softwareVersion"] == record["commit"]
        start = datetime.fromisoformat(action["startTime"])
        end = datetime.fromisoformat(action["endTime"])
        assert start <= end
        for key, hash_of_file in {"object": record["inputs"], "result": record["outputs"]}.items():
            files = [crate.entities[identifier] for identifier in ids_of(action[key])]
            assert {file["@type"] for file in files} <= {"File", "CreativeWork"}
            assert {digest_of(file) for file in files} == set(hash_of_file.values())


def test_what_one_job_makes_and_another_reads_is_one_file(crate):
    path_of_rows = "results/tiny/paper/evaluate/m/red/ft/all/0/tiny.parquet"
    (rows,) = [
        name for name, entity in crate.entities.items() if entity.get("name") == path_of_rows
    ]
    assert rows == crate.entities[rows]["identifier"], "it is not in the folder of the page"

    makers = []
    readers = []
    for name, action in crate.entities_of_type("CreateAction").items():
        if rows in ids_of(action["result"]):
            makers.append(name)
        if rows in ids_of(action["object"]):
            readers.append(name)
    (maker,) = makers
    (reader,) = readers
    assert "evaluate" in maker
    assert "tables" in reader
