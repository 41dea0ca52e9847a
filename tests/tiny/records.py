"""Finished jobs in the current folder: an output of each, and its provenance record."""

from pathlib import Path

from rib.base.files import sha256
from rib.records import provenance

FACTS = {
    "rule": "r",
    "job": "",
    "cfg": {"b": 1, "a": [2]},
    "seconds": 1.0,
    "started": "2026-01-01T09:59:59+00:00",
}
FACTS |= {"ended": "2026-01-01T10:00:00.000+00:00", "versions": {"torch": "2.6.0"}}
FACTS |= {"cpu_seconds": 1.0, "peak_memory": 10**6}
FACTS |= {"machine": {"system": "Linux", "processor": "one", "python": "3.11"}}


def output(name: str) -> str:
    return f"results/{name}/out.txt"


def record(name: str) -> str:
    return f"results/{name}/provenance.json"


def make(
    name: str = "a", text: str = "made", *inputs: str, root: Path = Path(), **facts
) -> tuple[str, dict]:
    """Run a job: its output, made from those of others, and its record, which is returned with its path."""
    made = root / output(name)
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(text)
    files = {"inputs": {output(other): sha256(root / output(other)) for other in inputs}}
    files |= {"outputs": {output(name): sha256(made)}, "sizes": {output(name): made.stat().st_size}}
    facts = {**FACTS, "log": f"logs/{name}.log", **files, **facts}
    provenance.write(root / record(name), facts)
    return record(name), facts


def edit(name: str, **facts) -> None:
    """Change facts of a job's record, and its digest."""
    provenance.write(Path(record(name)), {**provenance.read(Path(record(name))), **facts})
