"""Functions of Snakemake that are replaced: what locks a folder.

tests/workflow/test_beside.py and test_faults.py notice a change.
"""

import shutil
from pathlib import Path

from snakemake.persistence.file import FilePersistence

from rib.base.errors import UserError
from rib.jobs.parent_run import other_active_runs


def replace_functions() -> None:
    """Let Snakemake call the functions below, for which it has no settings, in place of its own."""
    FilePersistence._delete_locks = _delete_locks_of_this_run
    FilePersistence.cleanup_locks = _unlock_unless_a_run_is_active


def _delete_locks_of_this_run(persistence: FilePersistence) -> None:
    """Remove the locks of this run; Snakemake's own function also removes those of other runs."""
    for path in persistence._lockfile.values():
        Path(path).unlink(missing_ok=True)
    persistence._lockfile.clear()


def _unlock_unless_a_run_is_active(persistence: FilePersistence) -> None:
    """What `snakemake --unlock` does; Snakemake's own function ignores that a run is active.

    Raises a UserError if a run is active.
    """
    active_runs = other_active_runs(files_are_locked=True).values()
    if active_runs:
        raise UserError(
            f"a run is active in this folder ({'; '.join(active_runs)}); its locks are kept. "
            "Stop it first."
        )
    shutil.rmtree(persistence._lockdir, ignore_errors=True)
