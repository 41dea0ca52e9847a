"""Sharing results through DVC: one .dvc file per stage and model, and the gathered records."""

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

# Written next to each family's tables, where `dvc metrics` and `dvc plots` find it.
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
    """Add the results to DVC, so that colleagues can pull them in place of running their jobs.

    Each job has written a provenance record. The records of all jobs are gathered in one file for
    git, from which `rib pull` tells a colleague's Snakemake that the jobs are done.

    Args:
        patterns: glob patterns of the folders and files to track. Each of these gets a .dvc file
            next to it.
        report: folder with the report of the grid, whose tables are in `tables/`.

    Raises:
        UserError: There are no results yet, an output does not match its record, or DVC fails.
    """
    paths: set[Path] = set()
    for pattern in patterns:
        paths.update(path for path in Path().glob(pattern) if path.suffix != ".dvc")
    if not paths:
        raise UserError("there is nothing to track yet; run the workflow first (make run).")
    tracked = sorted(paths)
    additions = partial(added_to_line, metadata=SnakemakeMetadata(), present_commit=commit())
    n_records = provenance.gather(tracked, additions)
    # dvc.yaml tells `dvc metrics show` and `dvc plots show` which tables to show. It names
    # tables/mri.json, which only exists if the grid's tables are made.
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
    """What Snakemake knows of a job and its own record doesn't say; see provenance.ADDED.

    Args:
        record: the job's own record.
        lines: what provenance.jsonl has of the job already. It stays where Snakemake knows nothing.
        metadata: Snakemake's, of the current folder.
        present_commit: the project's commit.
    """
    earlier = provenance.added_by_track(record, lines)
    stored = metadata.read(next(iter(record["outputs"]), ""))
    if stored is None or stored.ended < provenance.started_at(record):
        return earlier  # what is stored is of an earlier job
    added: dict[str, Any] = {}
    accepted = earlier.get("accepted")
    known_until = provenance.ended_at(record)
    if accepted is not None:
        known_until = provenance.accepted_at(accepted)
    if stored.ended > known_until + SAME_TIME:  # `snakemake --touch` came after it
        accepted = None
        if _is_other(record, stored):
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


def _is_other(record: Mapping[str, Any], stored: Stored) -> bool:
    """Whether Snakemake knows a job with other settings or changed inputs than its record."""
    return stored.settings != repr(record["cfg"]) or any(
        stored.checksums.get(path, digest) != digest for path, digest in record["inputs"].items()
    )
