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
    """Path of a job's output, relative to the current folder."""
    return f"results/{name}/out.txt"


def record(name: str) -> str:
    """Path of a job's provenance record, relative to the current folder."""
    return f"results/{name}/provenance.json"


def make(name: str = "a", text: str = "made", *inputs: str, **facts) -> tuple[str, dict]:
    """Run a job: write its output and its record; gives the record's path and the record.

    Args:
        name: of the job.
        text: of its output.
        inputs: names of the jobs whose outputs it read.
        facts: of the record, instead of the usual ones.
    """
    output_file = Path(output(name))
    output_file.parent.mkdir(parents=True, exist_ok=True)
    output_file.write_text(text)
    all_facts = {
        **FACTS,
        "log": f"logs/{name}.log",
        "inputs": {output(job): sha256(Path(output(job))) for job in inputs},
        "outputs": {output(name): sha256(output_file)},
        "sizes": {output(name): output_file.stat().st_size},
        **facts,
    }
    provenance.write(Path(record(name)), all_facts)
    return record(name), all_facts
