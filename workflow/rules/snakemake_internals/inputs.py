"""A function of Snakemake that is replaced: which inputs of a job are compared.

tests/workflow/test_watching.py and test_sharing.py notice a change of it.
"""

from snakemake.persistence.file import FilePersistence

from rib.jobs.script import UNRECORDED

# Snakemake's own function
_inputs_of_job = FilePersistence._input


def leave_out_unrecorded_inputs() -> None:
    """Let Snakemake call the function below, for which it has no setting, in place of its own."""
    FilePersistence._input = _inputs_of_results


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
