"""Share results through DVC: a .dvc file per stage and model, and one file of gathered records."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log
from rib.records import provenance
from rib.records.dvc_command import run_dvc
from rib.records.environment import commit
from rib.records.snakemake_metadata import SAME_TIME, SnakemakeMetadata, Stored

# Each family's tables get this file, where `dvc metrics` and `dvc plots` look for it.
DVC_YAML = """\
# Written by `rib track`; read by `dvc metrics show`, `dvc metrics diff` and `dvc plots show`.
metrics:
  - tables/mri.json
plots:
  - mRI with intervals:
      x: mri
      y: {tables/mri.csv: method}
      x_label: mRI (percentage points)
      template: intervals
"""


def track(patterns: Iterable[str], report: Path) -> None:
    """Add the results to DVC, for colleagues who pull them instead of running the jobs.

    The provenance records of all jobs are gathered in provenance.jsonl for git. `rib pull` reads it
    to mark the jobs as done in a colleague's Snakemake.

    Args:
        patterns: glob patterns of folders and files to track; each match gets a .dvc file beside
            it.
        report: folder of the grid's report, with its tables in `tables/`.

    Raises:
        UserError: there are no results yet, an output does not match its record, or DVC fails.
    """
    paths: set[Path] = set()
    for pattern in patterns:
        paths.update(path for path in Path().glob(pattern) if path.suffix != ".dvc")
    if not paths:
        raise UserError("there is nothing to track yet; run the workflow first (make run).")
    tracked = sorted(paths)
    additions = partial(added_to_line, metadata=SnakemakeMetadata(), present_commit=commit())
    n_records = provenance.gather(tracked, additions)
    # dvc.yaml lists tables for `dvc metrics show` and `dvc plots show`. It names tables/mri.json,
    # which exists only if the grid's tables are made.
    if Path(report, "tables/mri.json").is_file():
        write_text(Path(report, "dvc.yaml"), DVC_YAML)
    log.info(
        "%d records in %s; adding %d folders and files to DVC",
        n_records,
        provenance.FILE,
        len(tracked),
    )
    run_dvc("add", *map(str, tracked))
    log.info("tracked. To share the results: git add --all && git commit && dvc push && git push")


def added_to_line(
    record: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    *,
    metadata: SnakemakeMetadata,
    present_commit: str | None,
) -> dict[str, Any]:
    """Facts about a job that Snakemake has and the job's record lacks (provenance.ADDED).

    For example `{"listed_inputs": ["data/a.npy", "data/a.npy"]}`, or {} if Snakemake adds nothing.

    Args:
        record: the job's own record.
        lines: lines of the job in provenance.jsonl, whose additions stay if Snakemake has no
            metadata.
        metadata: of the current folder.
        present_commit: the project's commit.
    """
    earlier = provenance.added_by_track(record, lines)
    stored = metadata.read(next(iter(record["outputs"]), ""))
    if stored is None or stored.ended < provenance.started_at(record):
        return earlier  # the metadata is of an earlier job
    added: dict[str, Any] = {}
    accepted = earlier.get("accepted")
    known_until = provenance.ended_at(record)
    if accepted is not None:
        known_until = provenance.accepted_at(accepted)
    if stored.ended > known_until + SAME_TIME:  # `snakemake --touch` came later
        accepted = None
        if _accepts_other_facts(record, stored):
            accepted = {
                "cfg": ast.literal_eval(stored.settings),
                "commit": present_commit,
                "date": datetime.fromtimestamp(stored.ended, UTC).isoformat(),
            }
    if accepted is not None:
        added["accepted"] = accepted
    if stored.inputs != sorted(record["inputs"]):
        added["listed_inputs"] = stored.inputs
    return added


def _accepts_other_facts(record: Mapping[str, Any], stored: Stored) -> bool:
    """Whether `snakemake --touch` stored other settings or inputs than the record's."""
    return stored.settings != repr(record["cfg"]) or any(
        stored.checksums.get(path, digest) != digest for path, digest in record["inputs"].items()
    )
