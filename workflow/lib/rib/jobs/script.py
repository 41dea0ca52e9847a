"""Run a Snakemake script as a job."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rib.jobs.fork_server import delegate
from rib.jobs.job import job

# Inputs of trainings on which no result depends: they are in no record, and repeat no job.
MONITORED = ("monitored", "monitored_splits", "monitored_related", "monitored_proxy")


def run(
    snakemake: Any, resumes: str | None = None, warm: str = ""
) -> AbstractContextManager[dict[str, Path]]:
    """Context manager of a script's job (see rib.jobs.job.job); yields where to write each output.

    The script continues in a worker that has the libraries `warm`, if the run has one (see
    rib.jobs.fork_server.PRELOADED).
    """
    if warm:
        delegate(sys.argv[0], warm)
    return job(
        rule=snakemake.rule,
        name="/".join(snakemake.wildcards),
        cfg=snakemake.params.cfg,
        inputs={
            name: value for name, value in named_inputs(snakemake).items() if name not in MONITORED
        },
        outputs=dict(snakemake.output.items()),
        log_file=snakemake.log[0],
        resumes=resumes,
    )


def named_inputs(snakemake: Any) -> dict[str, str | list[str]]:
    """A job's inputs by name: a path, or a list of paths.

    Args:
        snakemake: the object that Snakemake gives a script, whose class it does not export.
    """
    given = snakemake.input.items()
    return {
        name: str(value) if isinstance(value, str) else list(map(str, value))
        for name, value in given
    }
