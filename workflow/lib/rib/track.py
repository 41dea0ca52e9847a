"""What is shared through DVC: one .dvc file per stage and model, and the gathered provenance records."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rib.io import UserError, log, write_text
from rib.provenance import FILE, gather

# Beside the tables, so that a family brings its own and `dvc metrics` and `dvc plots` find all of them.
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


def track(units: Iterable[str], report: Path) -> None:
    """Put what runs made under DVC, and gather the records that let a colleague's Snakemake accept it.

    Args:
        units: patterns of folders and files, each of which gets a .dvc file beside it.
        report: folder of a family's tables.

    Raises:
        UserError: there is nothing yet, or an output is not what its job recorded, or DVC refuses.
    """
    found = sorted({path for pattern in units for path in Path().glob(pattern) if path.suffix != ".dvc"})
    if not found:
        raise UserError("there is nothing to track yet; run the workflow first (make run).")
    records = gather(found)
    if (report / "tables/mri.json").is_file():
        write_text(report / "dvc.yaml", DVC_YAML)
    log.info("%d records in %s; adding %d folders and files to DVC", records, FILE, len(found))
    _dvc("add", *map(str, found))
    log.info("tracked. Share it: git add --all && git commit && dvc push && git push")


def _dvc(command: str, *arguments: str) -> None:
    # What it suggests on success is for people who call it by hand; its --quiet would hide why it failed, too.
    words = [sys.executable, "-m", "dvc", command, *arguments]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"dvc {command} failed: {' '.join(done.stderr.split()) or 'it gave no reason'}")
