"""The one place where a script meets Snakemake: its object unpacked into the library's job."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rib.job import job
from rib.warm import delegate


def warm_start() -> None:
    """Go on in a process that has torch imported already, where this run keeps one."""
    delegate(sys.argv[0])


def run(snakemake, stage: str, resumes: str | None = None):
    """Context manager of a job (see rib.job.job); yields where to write each output."""
    return job(
        stage=stage,
        rule=snakemake.rule,
        name="/".join(snakemake.wildcards),
        cfg=snakemake.params.cfg,
        inputs=named_inputs(snakemake),
        outputs=dict(snakemake.output.items()),
        log_file=snakemake.log[0],
        resumes=resumes,
    )


def named_inputs(snakemake) -> dict[str, str | list[str]]:
    """A job's inputs by name: a path, or a list where the rule gives one."""
    return {
        name: str(value) if isinstance(value, str) else [str(path) for path in value]
        for name, value in snakemake.input.items()
    }
