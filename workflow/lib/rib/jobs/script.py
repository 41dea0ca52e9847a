"""Run a Snakemake script as a job."""

import sys
from contextlib import AbstractContextManager

from rib.jobs.fork_server import delegate
from rib.jobs.job import Outputs, job


def run(snakemake, resumes: str | None = None) -> AbstractContextManager[Outputs]:
    """Context manager of a job (see rib.jobs.job.job); yields where to write each output.

    Args:
        snakemake: the object that Snakemake provides to scripts.
        resumes: see rib.jobs.job.job.
    """
    return job(
        rule=snakemake.rule,
        name="/".join(snakemake.wildcards),
        cfg=snakemake.params.cfg,
        inputs=named_inputs(snakemake),
        outputs=dict(snakemake.output.items()),
        log_file=snakemake.log[0],
        resumes=resumes,
    )


def named_inputs(snakemake) -> dict[str, str | list[str]]:
    """A job's inputs by name: a path, or a list of paths."""
    return {
        name: str(value) if isinstance(value, str) else [str(path) for path in value]
        for name, value in snakemake.input.items()
    }


def warm_start(libraries: str = "networks") -> None:
    """Continue in a warm worker if the run has one; `libraries` is a key of rib.jobs.fork_server.PRELOADED."""
    delegate(sys.argv[0], libraries)
