"""Sharing results through DVC: one .dvc file per stage and model, and the gathered provenance records."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log
from rib.base.text import redacted
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

    Each folder or file of the patterns `units` gets a .dvc file next to it. Raises a UserError if there are no results yet, an output does not match its record, or DVC fails.
    """
    found = sorted(
        {path for pattern in units for path in Path().glob(pattern) if path.suffix != ".dvc"}
    )
    if not found:
        raise UserError("there is nothing to track yet; run the workflow first (make run).")
    with dvc_repository() as repo:
        records = gather(found)
        if Path(report, "tables/mri.json").is_file():
            write_text(Path(report, "dvc.yaml"), DVC_YAML)
        log.info("%d records in %s; adding %d folders and files to DVC", records, FILE, len(found))
        remove_leftovers(found)
        repo.add([*map(str, found)])
    log.info("tracked. To share the results: git add --all && git commit && dvc push && git push")


@contextmanager
def dvc_repository(**options) -> Iterator[Repo]:
    """The project's DVC repository, locked, so that no other command of DVC, track or pull is at work in it.

    Errors, of which each kind of storage has its own, become UserErrors.
    """
    logging.getLogger().addHandler(
        logging.NullHandler()
    )  # hides DVC's own messages, which may contain passwords
    try:
        with Repo(**options) as repo, lock_repo(repo):
            yield repo
    except LockError:
        raise UserError(
            "another `snakemake track`, `pull` or command of DVC is at work in this folder, or its disk has no file "
            "locks (.dvc/tmp/lock); wait until it ends, and run again."
        ) from None
    except Exception as error:
        known = isinstance(error, (UserError, DvcException))
        text = " ".join(str(error if known else f"{type(error).__name__}: {error}").split())
        text = text.replace(
            "Use `--force` to force.",
            "Delete them, share them (`snakemake track`), or pull others:",
        )
        text = text.replace(
            "ValueError: Missing remote name", "no storage is set up; add it with `dvc remote add`."
        )
        raise UserError(redacted(text[:1000])) from None


def remove_leftovers(places: Iterable[str | Path]) -> None:
    """Remove what a killed DVC left: temporary files in its cache and in folders, and a lock that it had not written."""
    for folder in (".dvc/cache", *places):
        for path in Path(folder).rglob(f".{'?' * 22}.tmp"):
            path.unlink(missing_ok=True)
    lock = Path(".dvc/tmp/rwlock")
    if lock.is_file() and not lock.stat().st_size:
        lock.unlink()
