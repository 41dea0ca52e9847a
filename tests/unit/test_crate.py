"""The Process Run Crate beside a page: every entity resolves, and each action is its record."""

import base64
import json
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import pytest

from rib.records import provenance
from rib.reporting.crate import write_crate
from tiny.bundles import make
from tiny.descriptions import description

FOLDER = Path("reports/tiny")


@pytest.fixture(scope="module")
def crate(tmp_path_factory):
    """Entities by id, and the records that they were made from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(make(tmp_path_factory.mktemp("crate") / "project", {"ft": 0.1}).parent)
        records = [
            str(FOLDER / "tables/provenance.json"),
            str(FOLDER / "tables/comparison.provenance.json"),
        ]
        about = {
            "family": {"title": "Tiny", "description": "invented"},
            "read": {"red": {"label": "R", "licence": "MIT"}},
        }
        path = FOLDER / "ro-crate-metadata.json"
        published = [str(file) for file in FOLDER.rglob("*.*")]
        write_crate(
            records=records,
            about=description(about),
            published=published,
            folder=FOLDER,
            crate=path,
        )
        graph = json.loads(path.read_text())["@graph"]
        entities = {entity["@id"]: entity for entity in graph}
        assert len(entities) == len(graph)
        own = {
            str(path): provenance.read(path)
            for path in provenance.below([Path("results"), FOLDER / "tables"])
        }
        parts = [(FOLDER / unquote(part["@id"])).is_file() for part in entities["./"]["hasPart"]]
        assert parts and all(parts)
        return entities, own


def references(value):
    """Ids that an entity names."""
    if isinstance(value, dict):
        return (
            [value["@id"]]
            if value.keys() == {"@id"}
            else [one for part in value.values() for one in references(part)]
        )
    return [one for part in value for one in references(part)] if isinstance(value, list) else []


def test_entities_resolve(crate):
    entities, _ = crate
    named = {name for entity in entities.values() for name in references(entity)}
    assert named - entities.keys() == {"https://w3id.org/ro/crate/1.1"}
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert (
        descriptor["about"] == {"@id": "./"}
        and descriptor["@type"] == "CreativeWork"
        and root["@type"] == "Dataset"
    )
    assert entities[root["conformsTo"]["@id"]]["@type"] == "CreativeWork"
    assert root["conformsTo"]["@id"].startswith("https://w3id.org/ro/wfrun/process/")
    files = {name for name, entity in entities.items() if entity["@type"] == "File"}
    assert {part["@id"] for part in root["hasPart"]} == files, (
        "what is a File must be part of the crate"
    )
    assert all(root[key] for key in ("name", "description", "license")) and datetime.fromisoformat(
        root["datePublished"]
    )


def test_each_job_is_an_action_with_instrument_inputs_outputs_and_times(crate):
    entities, records = crate
    actions = {
        name: entity for name, entity in entities.items() if entity["@type"] == "CreateAction"
    }
    assert {unquote(name)[1:] for name in actions} == records.keys()
    assert [one["@id"] for one in entities["./"]["mentions"]] == list(actions)
    for name, action in actions.items():
        record, tool = records[unquote(name)[1:]], entities[action["instrument"]["@id"]]
        assert tool["@type"] == "SoftwareApplication"
        assert (tool["name"], tool["softwareVersion"]) == (record["rule"], record["commit"])
        assert datetime.fromisoformat(action["startTime"]) <= datetime.fromisoformat(
            action["endTime"]
        )
        for key, files in (("object", record["inputs"]), ("result", record["outputs"])):
            found = [entities[one["@id"]] for one in action[key]]
            assert {entity["@type"] for entity in found} <= {"File", "CreativeWork"}
            assert {digest_of(entity) for entity in found} == set(files.values())


def digest_of(entity):
    """The SHA-256 in an entity's identifier (RFC 6920), as hex."""
    scheme, text = entity["identifier"].split(";")
    assert scheme == "ni:///sha-256"
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()


def test_what_one_job_makes_and_another_reads_is_one_file(crate):
    entities, _ = crate
    rows = "results/tiny/paper/evaluate/m/red/ft/all/0/tiny.parquet"
    (file,) = (name for name, entity in entities.items() if entity.get("name") == rows)
    assert file == entities[file]["identifier"], "it is not in the folder of the page"
    users = [name for name, entity in entities.items() if {"@id": file} in entity.get("object", [])]
    makers = [
        name for name, entity in entities.items() if {"@id": file} in entity.get("result", [])
    ]
    assert len(makers) == len(users) == 1 and "evaluate" in makers[0] and "tables" in users[0]
