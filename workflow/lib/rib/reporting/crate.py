"""A Process Run Crate: the jobs of a run as RO-Crate metadata beside its page, from the provenance records.

Each job is an action with its rule as instrument, its inputs, outputs and times. Files that are published with the page are
parts of the crate; others in the project are works that it names by their hash (RFC 6920). Source: https://w3id.org/ro/wfrun/process/0.5
"""

import base64
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from rib.base.files import write_json
from rib.records.verify import related

SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = {
    "@id": "https://w3id.org/ro/wfrun/process/0.5",
    "name": "Process Run Crate",
    "version": "0.5",
}


def write_crate(
    *, records: Iterable[str], about: Mapping, folder: Path, published: Collection[str], crate: Path
) -> None:
    """Write the crate of the jobs with records, and of all that they depend on.

    Args:
        about: the choices of the run (see `rib.reporting.page.write_page`).
        folder: that of the page.
        published: files of this folder that are published with the page.
    """
    jobs = {path: lines[0] for path, lines in related(records)[0].items() if lines}
    files, actions, tools = {"index.html": {"name": "The page of the run"}}, {}, {}
    for path, record in jobs.items():
        for name, digest in (record["inputs"] | record["outputs"]).items():
            entry = files.setdefault(
                _file_id(name, digest, folder, published),
                {"name": name, "identifier": _by_hash(digest)},
            )
            entry |= {"contentSize": str(record["sizes"][name])} if name in record["sizes"] else {}
        version = record.get("commit") or "unknown"
        tool = f"#{quote(record['rule'])}-{quote(version)}"
        tools[tool] = {
            "name": record["rule"],
            "softwareVersion": version,
            "applicationSuite": "ImageNet-RIB",
        }
        ids = (
            [_file_id(*pair, folder, published) for pair in record[key].items()]
            for key in ("inputs", "outputs")
        )
        used, made = ([{"@id": name} for name in dict.fromkeys(names)] for names in ids)
        what = {"name": f"{record['rule']} {record['job']}".strip(), "startTime": record["started"]}
        what |= {
            "endTime": record["ended"],
            "instrument": {"@id": tool},
            "object": used,
            "result": made,
        }
        actions[f"#{quote(path)}"] = what
    here = {name: entry for name, entry in files.items() if not name.startswith("ni:")}
    elsewhere = {name: entry for name, entry in files.items() if name not in here}
    licences = sorted({f"{entry['label']}: {entry['licence']}" for entry in about["read"].values()})
    root = {
        "name": f"ImageNet-RIB: {about['family']['title']}",
        "description": f"Robustness after fine-tuning on {about['family']['description']}: results, and the jobs behind.",
        "datePublished": max(record["ended"] for record in jobs.values()),
        "license": f"Made from data and models with licences of their own; data: {'; '.join(licences)}",
        "conformsTo": {"@id": PROFILE["@id"]},
        "hasPart": [{"@id": name} for name in here],
        "mentions": [{"@id": name} for name in actions],
    }
    descriptor = {"conformsTo": {"@id": SPECIFICATION}, "about": {"@id": "./"}}
    works = {"ro-crate-metadata.json": descriptor, PROFILE["@id"]: PROFILE, **elsewhere}
    kinds = [("CreativeWork", works), ("Dataset", {"./": root}), ("SoftwareApplication", tools)]
    kinds += [("CreateAction", actions), ("File", here)]
    graph = [
        {"@id": name, "@type": kind, **what} for kind, own in kinds for name, what in own.items()
    ]
    write_json(crate, {"@context": f"{SPECIFICATION}/context", "@graph": graph})


def _file_id(name: str, digest: str, folder: Path, published: Collection[str]) -> str:
    """Identifier of a file: its path in the folder if it is published, or else its hash."""
    if name in published:
        return quote(str(Path(name).relative_to(folder)))
    return _by_hash(digest)


def _by_hash(digest: str) -> str:
    return f"ni:///sha-256;{base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip('=')}"
