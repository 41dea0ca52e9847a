"""Sharing results through DVC: one .dvc file per stage and model, and the gathered records."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log
from rib.base.text import redacted
from rib.records.provenance import FILE, gather

# Written next to each family's tables, where `dvc metrics` and `dvc plots` find it.
DVC_YAML = """\
# Written by `snakemake track`; read by `dvc metrics show`, `dvc metrics diff` and `dvc plots show`.
metrics:
  - tables/mri.json
plots:
  - mRI with intervals:
      x: mri
      y: {tables/mri.csv: method}
      x_label: mRI (percentage points)
      template: intervals
"""
# What messages of DVC say, and what is said instead.
REPLACEMENTS = {
    "Use `--force` to force.": "Delete them, share them (`snakemake track`), or pull others:",
    "ValueError: Missing remote name": "no storage is set up; add it with `dvc remote add`.",
}
LONGEST_MESSAGE = 1000  # characters
TEMPORARY = f".{'?' * 22}.tmp"  # pattern of the names of DVC's temporary files


def track(patterns: Iterable[str], report: str | Path) -> None:
    """Add the results to DVC, so that colleagues can pull them in place of running their jobs.

    Each job has written a provenance record. The records of all jobs are gathered in one file for
    git. A colleague's Snakemake compares them with the pulled results, and so knows that the jobs
    are done.

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
    with dvc_repository() as repo:
        n_records = gather(tracked)
        # dvc.yaml tells `dvc metrics show` and `dvc plots show` which tables to show. It names
        # tables/mri.json, which only exists if the grid's tables are made.
        if Path(report, "tables/mri.json").is_file():
            write_text(Path(report, "dvc.yaml"), DVC_YAML)
        log.info(
            "%d records in %s; adding %d folders and files to DVC", n_records, FILE, len(tracked)
        )
        # DVC would add temporary files of an earlier, killed DVC as if they were results.
        remove_leftovers(tracked)
        repo.add([str(path) for path in tracked])
    log.info("tracked. To share the results: git add --all && git commit && dvc push && git push")


@contextmanager
def dvc_repository(**options: Any) -> Iterator[Repo]:
    """The project's DVC repository, locked.

    No other command of DVC, track or pull is at work in it then. Errors, of which each kind of
    storage has its own, become UserErrors.
    """
    # Hides DVC's own messages, which may contain passwords.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        with Repo(**options) as repo, lock_repo(repo):
            yield repo
    except LockError:
        raise UserError(
            "another `snakemake track`, `pull` or command of DVC is at work in this folder, or its "
            "disk has no file locks (.dvc/tmp/lock); wait until it ends, and run again."
        ) from None
    except Exception as error:
        raise UserError(_message_of(error)) from None


def _message_of(error: Exception) -> str:
    """An error's message in one line, without DVC's advice and without secrets."""
    if isinstance(error, UserError | DvcException):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error}"
    message = " ".join(message.split())
    for text, replacement in REPLACEMENTS.items():
        message = message.replace(text, replacement)
    return redacted(message[:LONGEST_MESSAGE])


def remove_leftovers(folders: Iterable[str | Path]) -> None:
    """Remove what a killed DVC left: temporary files, and an empty file of locks.

    The temporary files are in DVC's cache and in the folders that it was adding or pulling.
    """
    for folder in (".dvc/cache", *folders):
        for path in Path(folder).rglob(TEMPORARY):
            path.unlink(missing_ok=True)
    lock = Path(".dvc/tmp/rwlock")
    # DVC was killed before it wrote the locks into the file, and could not read it as it is.
    if lock.is_file() and lock.stat().st_size == 0:
        lock.unlink()
