"""Run a Snakemake script as a job."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from rib.base.errors import UserError
from rib.base.progress import print_lines
from rib.base.text import redacted
from rib.jobs.job import job


def run(snakemake: Any, resumes: str | None = None) -> AbstractContextManager[dict[str, Path]]:
    """A script's job: a context manager that yields the path to write each output to, by name.

    Args:
        snakemake: the object that Snakemake gives a script.
        resumes: name of a checkpoint file, if the job can resume.
    """
    return job(
        rule=snakemake.rule,
        name="/".join(snakemake.wildcards),
        cfg=snakemake.params.cfg,
        inputs=named_inputs(snakemake),
        outputs=dict(snakemake.output.items()),
        log_file=snakemake.log[0],
        resumes=resumes,
        attempt=snakemake.resources.get("attempt", 1),
    )


def show_user_errors_as_sentences() -> None:
    """Let a UserError that ends this process print one sentence without a traceback.

    A job does so for errors of its body. This is for the code of a script outside a job.
    """
    sys.excepthook = _print_error


def _print_error(
    error_type: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a UserError as a sentence, other errors as Python does; for sys.excepthook."""
    if isinstance(error, UserError):
        print_lines(redacted(str(error)), file=sys.stderr)
    else:
        sys.__excepthook__(error_type, error, trace)


def named_inputs(snakemake: Any) -> dict[str, str | list[str]]:
    """A job's inputs by name, such as `{"network": "a.json", "datasets": ["b.json", "c.json"]}`.

    Args:
        snakemake: the object that Snakemake gives a script; its class is not exported.
    """
    inputs: dict[str, str | list[str]] = {}
    for name, path_or_paths in snakemake.input.items():
        if isinstance(path_or_paths, str):
            inputs[name] = str(path_or_paths)
        else:
            inputs[name] = [str(path) for path in path_or_paths]
    return inputs
