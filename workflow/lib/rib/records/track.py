"""Sharing results through DVC: one .dvc file per stage and model, and the gathered provenance records."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log
from rib.records.provenance import FILE, gather

# Written next to each family's tables, where `dvc metrics` and `dvc plots` find it.
DVC_YAML = """# Written by `snakemake track`; read by `dvc metrics show`, `dvc metrics diff` and `dvc plots show`.
metrics:
  - tables/mri.json
plots:
  - mRI with intervals:
      x: mri
      y: {tables/mri.csv: method}
      x_label: mRI (percentage points)
      template: intervals
"""


def track(units: Iterable[str], report: str | Path) -> None:
    """Add results to DVC, and gather the records by which a colleague's Snakemake accepts them.

    Args:
        units: patterns of folders and files, each of which gets a .dvc file next to it.

    Raises:
        UserError: There are no results yet, an output does not match its record, or DVC fails.
    """
    found = sorted({path for pattern in units for path in Path().glob(pattern) if path.suffix != ".dvc"})
    if not found:
        raise UserError("there is nothing to track yet; run the workflow first (make run).")
    records = gather(found)
    if Path(report, "tables/mri.json").is_file():
        write_text(Path(report, "dvc.yaml"), DVC_YAML)
    log.info("%d records in %s; adding %d folders and files to DVC", records, FILE, len(found))
    _dvc("add", *map(str, found))
    log.info("tracked. To share the results: git add --all && git commit && dvc push && git push")


def _dvc(command: str, *arguments: str) -> None:
    # DVC's hints on success are not useful here, but --quiet would also hide the reason of a failure.
    words = [sys.executable, "-m", "dvc", command, *arguments]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"dvc {command} failed: {' '.join(done.stderr.split()) or 'it gave no reason'}")
