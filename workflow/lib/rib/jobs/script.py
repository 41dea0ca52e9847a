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
    """Context manager of a script's job, which yields where to write each output.

    See rib.jobs.job.job.
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
    """Print a UserError that ends this process as its sentence, and other errors as Python does.

    A job shows the errors of its body itself (see rib.jobs.job.job). This is for what a script does
    before its job, or without one.
    """
    sys.excepthook = _print_error


def _print_error(
    error_type: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What Python calls with an error that ends the process; see show_user_errors_as_sentences."""
    if isinstance(error, UserError):
        print_lines(redacted(str(error)), file=sys.stderr)
    else:
        sys.__excepthook__(error_type, error, trace)


def named_inputs(snakemake: Any) -> dict[str, str | list[str]]:
    """A job's inputs by name: a path, or a list of paths.

    Args:
        snakemake: the object that Snakemake gives a script, whose class it does not export.
    """
    inputs: dict[str, str | list[str]] = {}
    for name, path_or_paths in snakemake.input.items():
        if isinstance(path_or_paths, str):
            inputs[name] = str(path_or_paths)
        else:
            inputs[name] = [str(path) for path in path_or_paths]
    return inputs
