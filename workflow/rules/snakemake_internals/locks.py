"""Functions of Snakemake that are replaced: what locks a folder, and what inputs are compared.

tests/workflow/test_beside.py and test_faults.py notice a change of the locks, test_watching.py and
test_sharing.py one of the inputs.
"""

import shutil
from pathlib import Path

from snakemake.persistence.file import FilePersistence

from rib.base.errors import UserError
from rib.jobs.parent_run import other_active_runs
from rib.jobs.script import UNRECORDED

# Snakemake's own function
_inputs_of_job = FilePersistence._input


def replace_functions() -> None:
    """Let Snakemake call the functions below, for which it has no settings, in place of its own."""
    FilePersistence._input = _inputs_of_results
    FilePersistence._delete_locks = _delete_locks_of_this_run
    FilePersistence.cleanup_locks = _unlock_unless_a_run_is_active


def _inputs_of_results(persistence: FilePersistence, job) -> list[str]:
    """Inputs of a job that are recorded and compared.

    Those of a training on which no result depends are left out, so that it is not repeated if they
    change.
    """
    inputs = list(_inputs_of_job(persistence, job))
    for name in UNRECORDED:
        files = job.input.get(name, ())
        if isinstance(files, str):
            files = [files]
        for path in files:
            inputs.remove(path)
    return inputs


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
