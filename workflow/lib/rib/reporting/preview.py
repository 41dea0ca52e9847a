"""A preview of an unfinished grid: tables, figures and the page of the runs that are finished."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rib.jobs.job import reason


def write_preview(*, folder: str, jobs: Sequence, partial: Mapping, call: Callable) -> None:
    """Run jobs one after another, that of the page last, in place of an earlier preview; the page names those that fail.

    Args:
        jobs: each as its script takes it, with a name; see workflow/rules/report_jobs.py.
        partial: see `rib.reporting.page.write_page`.
        call: runs a job's script, and raises SystemExit if it fails. Without metrics, or if the page fails, so does this.
    """
    shutil.rmtree(folder, ignore_errors=True)
    left_out, (*others, page) = dict(partial["left_out"]), jobs
    for job in others:
        needed = (path for files in job.input for path in ([files] if isinstance(files, str) else files))
        if missing := next((path for path in needed if not Path(path).is_file()), None):
            left_out[job.name] = f"{missing} is not made"
            continue
        try:
            call(job)
        except SystemExit:
            left_out[job.name] = reason(Path(job.log[0])) or "it failed"
            if job.name == "compute_metrics":
                raise
    made, cfg = {str(path) for path in Path(folder).rglob("*")}, page.params.cfg
    analyses = dict(zip(cfg["analyses"], page.input.analyses, strict=True))
    given = {name: it if isinstance(it, str) else [*filter(made.__contains__, it)] for name, it in page.input.items()}
    given["captions"] = [it for it in page.input.captions if f"{folder}/figures/{Path(it).stem}.png" in made]
    files = {title: [it for it in of if f"{folder}/tables/{it}" in made] for title, of in cfg["more_files"].items()}
    cfg |= {"analyses": [name for name, path in analyses.items() if path in made], "more_files": files}
    cfg["partial"] = {**partial, "left_out": left_out}
    page.input = type(page.input)(fromdict=given)
    call(page)
    print(f"Preview of {partial['finished']} of {partial['runs']} runs: {page.output.page}")
