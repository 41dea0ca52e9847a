"""A preview of an unfinished grid: tables, figures and the page of the runs that are finished."""

import importlib
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from graphlib import TopologicalSorter
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from rib.base.progress import print_lines
from rib.jobs.job import reason
from rib.jobs.parent_run import end_with_parent

AT_ONCE = 2  # jobs; a grid may be running on the other cores
# What jobs that follow the first one import, in place of each of them.
LIBRARIES = ("rib.analysis.model_comparison", "rib.figures")


def write_preview(*, folder: str, jobs: Sequence, partial: Mapping, call: Callable) -> None:
    """Run jobs, each after those it needs and that of the page last, in place of an earlier preview.

    Args:
        jobs: each as its script takes it, with a name; see workflow/rules/report_jobs.py.
        partial: see `rib.reporting.page.write_page`. The page also names the jobs that fail.
        call: runs a job's script, and raises SystemExit if it fails. Without metrics, or if the page fails, so does this.
    """
    shutil.rmtree(folder, ignore_errors=True)
    *others, page = jobs
    named, makers = (
        {job.name: job for job in others},
        {path: job.name for job in others for path in job.output},
    )
    needs = {job.name: {makers[path] for path in _files(job) if path in makers} for job in others}
    uses, order = Counter(chain.from_iterable(needs.values())), TopologicalSorter(needs)
    order.prepare()
    ready: list[str] = []
    running: dict[Future, str] = {}
    reasons = {}
    while order.is_active():
        ready = sorted(
            [*ready, *order.get_ready()], key=lambda name: -uses[name]
        )  # first what most jobs wait for
        while ready and len(running) < AT_ONCE:
            name = ready.pop(0)
            running[_start(call, named[name])] = name
        for library in LIBRARIES:  # while the first jobs run
            importlib.import_module(library)
        importlib.import_module("rib.reporting.page").vega_bundle()
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            order.done(name := running.pop(future))
            try:
                _ended(future, name)
            except SystemExit as error:
                if name == "compute_metrics":
                    raise
                said = (
                    error.code if isinstance(error.code, str) else reason(Path(named[name].log[0]))
                )
                reasons[name] = said or "it failed"
    _keep_made(page, folder, {**partial, "left_out": {**dict(partial["left_out"]), **reasons}})
    _ended(_start(call, page), page.name)
    print_lines(f"Preview of {partial['finished']} of {partial['runs']} runs: {page.output.page}")


def _start(call: Callable, job) -> Future:
    """Run a job in a process of its own, since it may be killed."""
    with_parent = ProcessPoolExecutor(1, get_context("fork"), end_with_parent)
    future = with_parent.submit(_run, call, job)
    with_parent.shutdown(wait=False)
    return future


def _run(call: Callable, job) -> None:
    if missing := next((path for path in _files(job) if not Path(path).is_file()), None):
        sys.exit(f"{missing} is not made")
    call(job)


def _files(job) -> Iterator[str]:
    """What a job needs."""
    return chain.from_iterable([files] if isinstance(files, str) else files for files in job.input)


def _ended(future: Future, name: str) -> None:
    """Wait for a job; a SystemExit if it failed."""
    try:
        future.result()
    except BrokenExecutor:
        sys.exit(f"{name} was killed, perhaps for lack of memory")


def _keep_made(page, folder: str, partial: Mapping) -> None:
    """Leave what is not in the folder out of what the page shows."""
    made, cfg = {str(path) for path in Path(folder).rglob("*")}, page.params.cfg
    paths = zip(cfg["analyses"], page.input.analyses, strict=True)
    given = {
        name: it if isinstance(it, str) else [*filter(made.__contains__, it)]
        for name, it in page.input.items()
    }
    given["captions"] = [
        it for it in page.input.captions if f"{folder}/figures/{Path(it).stem}.png" in made
    ]
    files = {
        title: [it for it in of if f"{folder}/tables/{it}" in made]
        for title, of in cfg["more_files"].items()
    }
    analyses = [name for name, path in paths if path in made]
    cfg |= {"analyses": analyses, "more_files": files, "partial": partial}
    page.input = type(page.input)(fromdict=given)
