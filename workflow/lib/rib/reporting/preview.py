"""A preview of an unfinished grid: tables, figures and the page of the runs that are finished."""

import importlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from threading import Semaphore

from rib.jobs.fork_server import PRELOADED
from rib.jobs.job import reason
from rib.jobs.parent_run import end_with_parent

AT_ONCE = 2  # jobs; a grid may be running on the other cores


def write_preview(*, folder: str, jobs: Sequence, partial: Mapping, call: Callable) -> None:
    """Run jobs, each after those it needs and that of the page last, in place of an earlier preview.

    Args:
        jobs: each as its script takes it, with a name; see workflow/rules/report_jobs.py.
        partial: see `rib.reporting.page.write_page`. The page also names the jobs that fail.
        call: runs a job's script, and raises SystemExit if it fails. Without metrics, or if the page fails, so does this.
    """
    shutil.rmtree(folder, ignore_errors=True)
    *others, page = jobs
    made_by: dict[str, Future] = {}
    turn, fork = Semaphore(AT_ONCE), get_context("fork")
    for name in PRELOADED["tables"]:  # once for all jobs
        importlib.import_module(name)

    def run(job) -> None:
        with turn, ProcessPoolExecutor(1, fork, end_with_parent) as process:  # of its own: it may be killed
            try:
                process.submit(call, job).result()
            except BrokenExecutor:
                sys.exit(f"{job.name} was killed, perhaps for lack of memory")

    def left_out(job) -> str | None:
        """Run a job when those that it needs have ended; the reason if it makes nothing."""
        needed = [path for files in job.input for path in ([files] if isinstance(files, str) else files)]
        wait([made_by[path] for path in needed if path in made_by])
        if missing := next((path for path in needed if not Path(path).is_file()), None):
            return f"{missing} is not made"
        try:
            return run(job)
        except SystemExit as error:
            if job.name == "compute_metrics":
                raise
            return reason(Path(job.log[0])) or (error.code if isinstance(error.code, str) else "it failed")

    with ThreadPoolExecutor(len(others)) as threads:
        ended = {}
        for job in others:
            ended[job.name] = threads.submit(left_out, job)
            made_by |= dict.fromkeys(job.output, ended[job.name])
    reasons = {name: why for name, future in ended.items() if (why := future.result())}
    _keep_made(page, folder, {**partial, "left_out": {**dict(partial["left_out"]), **reasons}})
    run(page)
    print(f"Preview of {partial['finished']} of {partial['runs']} runs: {page.output.page}")


def _keep_made(page, folder: str, partial: Mapping) -> None:
    """Leave what is not in the folder out of what the page shows."""
    made, cfg = {str(path) for path in Path(folder).rglob("*")}, page.params.cfg
    paths = zip(cfg["analyses"], page.input.analyses, strict=True)
    given = {name: it if isinstance(it, str) else [*filter(made.__contains__, it)] for name, it in page.input.items()}
    given["captions"] = [it for it in page.input.captions if f"{folder}/figures/{Path(it).stem}.png" in made]
    files = {title: [it for it in of if f"{folder}/tables/{it}" in made] for title, of in cfg["more_files"].items()}
    analyses = [name for name, path in paths if path in made]
    cfg |= {"analyses": analyses, "more_files": files, "partial": partial}
    page.input = type(page.input)(fromdict=given)
