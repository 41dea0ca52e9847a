"""A preview of an unfinished grid: tables, figures and the page of the runs that are finished."""

import importlib
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from graphlib import TopologicalSorter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rib.base.progress import print_lines
from rib.jobs.job import reason
from rib.jobs.parent_run import end_with_parent

AT_ONCE = 2  # jobs; a grid may be running on the other cores
# What jobs that follow the first one import, in place of each of them.
LIBRARIES = ("rib.analyses.models.tables", "rib.figures")
METRICS = "compute_metrics"  # the job that all others need


def write_preview(*, folder: str, jobs: Sequence, partial: Mapping, call: Callable) -> None:
    """Run jobs in place of an earlier preview: each after those it needs, that of the page last.

    Args:
        folder: where the preview is written; an earlier one is removed.
        jobs: each as its script takes it, with a name; see workflow/rules/report_jobs.py.
        partial: how far the grid is (rib.reporting.settings.PreviewDescription). The page also
            names the jobs that fail.
        call: runs a job's script, and raises SystemExit if it fails.

    Raises:
        SystemExit: the job of the metrics or that of the page failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    *jobs_before_page, page = jobs
    failures = _run_in_order(jobs_before_page, call)
    left_out = {**partial["left_out"], **failures}
    _keep_what_was_made(page, folder, {**partial, "left_out": left_out})
    _wait_for(_start(call, page), page.name)
    print_lines(f"Preview of {partial['finished']} of {partial['runs']} runs: {page.output.page}")


def _run_in_order(jobs: Sequence, call: Callable) -> dict[str, str]:
    """Run jobs, each after those it needs, and return why some failed, by name."""
    job_of_name = {job.name: job for job in jobs}
    needs = _needed_jobs(jobs)
    # Those that most jobs wait for run first.
    number_of_waiting = Counter(name for needed in needs.values() for name in needed)
    order = TopologicalSorter(needs)
    order.prepare()
    ready: list[str] = []
    running: dict[Future, str] = {}
    failures = {}
    while order.is_active():
        ready += order.get_ready()
        ready.sort(key=lambda name: -number_of_waiting[name])
        while ready and len(running) < AT_ONCE:
            name = ready.pop(0)
            running[_start(call, job_of_name[name])] = name
        _import_libraries()  # while the first jobs run
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            name = running.pop(future)
            order.done(name)
            try:
                _wait_for(future, name)
            except SystemExit as error:
                if name == METRICS:
                    raise
                failures[name] = _why_it_failed(error, job_of_name[name])
    return failures


def _needed_jobs(jobs: Sequence) -> dict[str, set[str]]:
    """Names of the jobs that each job needs, by its name."""
    maker_of_file = {path: job.name for job in jobs for path in job.output}
    needs = {}
    for job in jobs:
        needs[job.name] = {maker_of_file[path] for path in _inputs(job) if path in maker_of_file}
    return needs


def _import_libraries() -> None:
    """Import what later jobs, which are forks of this process, would import each."""
    for library in LIBRARIES:
        importlib.import_module(library)
    importlib.import_module("rib.reporting.page").vega_bundle()


def _why_it_failed(error: SystemExit, job: Any) -> str:
    """The message of a failed job, else the last error in its log."""
    if isinstance(error.code, str):
        return error.code or "it failed"
    return reason(Path(job.log[0])) or "it failed"


def _start(call: Callable, job: Any) -> Future:
    """Run a job in a process of its own, since it may be killed."""
    executor = ProcessPoolExecutor(1, get_context("fork"), end_with_parent)
    future = executor.submit(_run, call, job)
    executor.shutdown(wait=False)
    return future


def _run(call: Callable, job: Any) -> None:
    """Run a job; a SystemExit if an input is missing or it fails."""
    for path in _inputs(job):
        if not Path(path).is_file():
            sys.exit(f"{path} is not made")
    call(job)


def _inputs(job: Any) -> list[str]:
    """Paths of all inputs of a job."""
    paths = []
    for files in job.input:
        paths += [files] if isinstance(files, str) else files
    return paths


def _wait_for(future: Future, name: str) -> None:
    """Wait for a job; a SystemExit if it failed or was killed."""
    try:
        future.result()
    except BrokenExecutor:
        sys.exit(f"{name} was killed, perhaps for lack of memory")


def _keep_what_was_made(page: Any, folder: str, partial: Mapping) -> None:
    """Leave what is not in the folder out of what the job of the page shows.

    Args:
        page: the job, whose inputs and settings are changed.
        folder: that of the preview.
        partial: how far the grid is, which becomes a setting of the page.
    """
    made_files = {str(path) for path in Path(folder).rglob("*")}
    settings = page.params.cfg
    paths_of_analyses = zip(settings["analyses"], page.input.analyses, strict=True)
    settings["analyses"] = [name for name, path in paths_of_analyses if path in made_files]
    more_files = {}
    for title, names in settings["more_files"].items():
        more_files[title] = [name for name in names if f"{folder}/tables/{name}" in made_files]
    settings["more_files"] = more_files
    settings["partial"] = partial
    inputs = {}
    for name, files in page.input.items():
        inputs[name] = files
        if not isinstance(files, str):
            inputs[name] = [path for path in files if path in made_files]
    inputs["captions"] = [
        path
        for path in page.input.captions
        if f"{folder}/figures/{Path(path).stem}.png" in made_files
    ]
    page.input = type(page.input)(fromdict=inputs)
