"""A Process Run Crate: the jobs of a run as RO-Crate metadata beside its page.

It is made from the provenance records. Each job is an action with its rule as instrument, its
inputs, outputs and times. Files that are published with the page are parts of the crate; others in
the project are works that it names by their hash (RFC 6920).

Source: https://w3id.org/ro/wfrun/process/0.5
"""

import base64
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rib.base.files import write_json
from rib.records.verify import related
from rib.reporting.settings import GridDescription

SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = {
    "@id": "https://w3id.org/ro/wfrun/process/0.5",
    "name": "Process Run Crate",
    "version": "0.5",
}
Entities = dict[str, dict[str, Any]]  # properties of each entity of a crate, by its identifier


def write_crate(
    records: Iterable[str],
    about: GridDescription,
    published: Collection[str],
    folder: Path,
    crate: Path,
) -> None:
    """Write the crate of the jobs with records, and of all that they depend on.

    Args:
        records: paths of the provenance records.
        about: the choices of the run.
        published: paths of the files that are published with the page, below `folder`.
        folder: that of the page.
        crate: the JSON file to write.
    """
    records_of_jobs, _ = related(records)
    jobs = {path: lines[0] for path, lines in records_of_jobs.items() if lines}
    identifiers = FileIdentifiers(folder, published)
    files: Entities = {"index.html": {"name": "The page of the run"}}
    tools: Entities = {}
    actions: Entities = {}
    for path, record in jobs.items():
        _add_files(files, record, identifiers)
        tool = _tool_identifier(record)
        tools[tool] = _tool(record)
        actions[f"#{quote(path)}"] = _action(record, tool, identifiers)
    parts = {name: file for name, file in files.items() if not name.startswith("ni:")}
    works_by_hash = {name: file for name, file in files.items() if name.startswith("ni:")}
    root: dict[str, Any] = {
        "name": f"ImageNet-RIB: {about.family.title}",
        "description": (
            f"Robustness after fine-tuning on {about.family.description}: "
            "results, and the jobs behind."
        ),
        "datePublished": max(record["ended"] for record in jobs.values()),
        "license": _licence(about),
        "conformsTo": {"@id": PROFILE["@id"]},
        "hasPart": _references(parts),
        "mentions": _references(actions),
    }
    works: Entities = {
        "ro-crate-metadata.json": {
            "conformsTo": {"@id": SPECIFICATION},
            "about": {"@id": "./"},
        },
        PROFILE["@id"]: PROFILE,
        **works_by_hash,
    }
    graph = [
        *_typed(works, "CreativeWork"),
        *_typed({"./": root}, "Dataset"),
        *_typed(tools, "SoftwareApplication"),
        *_typed(actions, "CreateAction"),
        *_typed(parts, "File"),
    ]
    write_json(crate, {"@context": f"{SPECIFICATION}/context", "@graph": graph})


class FileIdentifiers:
    """Identifiers of files in a crate.

    Args:
        folder: that of the page.
        published: paths of the files that are published with the page.
    """

    def __init__(self, folder: Path, published: Collection[str]):
        self.folder = folder
        self.published = published

    def identifier(self, path: str, digest: str) -> str:
        """A file's path in the folder if it is published, or else its hash."""
        if path in self.published:
            return quote(str(Path(path).relative_to(self.folder)))
        return _by_hash(digest)

    def references(self, files: Mapping[str, str]) -> list[dict[str, str]]:
        """References to files, given as hashes by path, each once."""
        identifiers = [self.identifier(path, digest) for path, digest in files.items()]
        return _references(dict.fromkeys(identifiers))


def _add_files(files: Entities, record: Mapping[str, Any], identifiers: FileIdentifiers) -> None:
    """Add the files that a job read and wrote to the entities of a crate.

    Args:
        files: entities by identifier, to which files are added that are not there yet.
        record: the job's provenance record.
        identifiers: how the crate names files.
    """
    digests = {**record["inputs"], **record["outputs"]}
    for path, digest in digests.items():
        identifier = identifiers.identifier(path, digest)
        if identifier not in files:
            files[identifier] = {"name": path, "identifier": _by_hash(digest)}
        if path in record["sizes"]:
            files[identifier]["contentSize"] = str(record["sizes"][path])


def _tool_identifier(record: Mapping[str, Any]) -> str:
    """Identifier of a job's rule at its commit: `#finetune-0a1b2c`."""
    return f"#{quote(record['rule'])}-{quote(_version(record))}"


def _version(record: Mapping[str, Any]) -> str:
    """The commit of the code that a job ran."""
    commit: str | None = record.get("commit")
    if not commit:
        return "unknown"
    return commit


def _tool(record: Mapping[str, Any]) -> dict[str, Any]:
    """The rule of a job, at its commit."""
    return {
        "name": record["rule"],
        "softwareVersion": _version(record),
        "applicationSuite": "ImageNet-RIB",
    }


def _action(record: Mapping[str, Any], tool: str, identifiers: FileIdentifiers) -> dict[str, Any]:
    """Description of a job as an action of RO-Crate: what it read and wrote, by what, and when.

    Args:
        record: the job's provenance record, with the hash of each input and output.
        tool: identifier of the job's rule in the crate.
        identifiers: how the crate names files.
    """
    return {
        "name": f"{record['rule']} {record['job']}".strip(),
        "startTime": record["started"],
        "endTime": record["ended"],
        "instrument": {"@id": tool},
        "object": identifiers.references(record["inputs"]),
        "result": identifiers.references(record["outputs"]),
    }


def _licence(about: GridDescription) -> str:
    """What the crate says about its licence: those of all data that were read."""
    licences = {f"{dataset.label}: {dataset.licence}" for dataset in about.read.values()}
    return (
        f"Made from data and models with licences of their own; data: {'; '.join(sorted(licences))}"
    )


def _references(identifiers: Iterable[str]) -> list[dict[str, str]]:
    """References to entities of a crate, as RO-Crate writes them."""
    return [{"@id": identifier} for identifier in identifiers]


def _typed(entities: Entities, kind: str) -> list[dict[str, Any]]:
    """Entities of a kind with identifier and type, as the graph of a crate has them."""
    return [
        {"@id": identifier, "@type": kind, **properties}
        for identifier, properties in entities.items()
    ]


def _by_hash(digest: str) -> str:
    """Name of a file by its SHA-256, given in hex (RFC 6920)."""
    text = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode()
    return f"ni:///sha-256;{text.rstrip('=')}"
