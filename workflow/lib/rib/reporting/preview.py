"""A preview of an unfinished grid: tables, figures and the page of the runs that are finished, and what is missing."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rib.jobs.job import reason


def write_preview(*, folder: str, jobs: Sequence, partial: Mapping, call: Callable) -> None:
    """Run the jobs of a preview, the page last, in place of an earlier preview.

    A job that fails, or whose inputs are not made, is left out, and the page names it.

    Args:
        jobs: each with name, input, output, params and log, as scripts take them.
        partial: what is shown of the grid (see page.html.jinja); `left_out` has reasons by name.
        call: runs the script of a job, and raises SystemExit if it fails.

    Raises:
        SystemExit: the tables that every page has, or the page, cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    left_out, page = dict(partial["left_out"]), jobs[-1]
    for job in jobs[:-1]:
        files = (path for value in job.input for path in ([value] if isinstance(value, str) else value))
        if missing := next((path for path in files if not Path(path).is_file()), None):
            left_out[job.name] = f"{missing} is not made"
            continue
        try:
            call(job)
        except SystemExit:
            left_out[job.name] = reason(Path(job.log[0])) or "it failed"
    given = {name: it if isinstance(it, str) else [*filter(_made, it)] for name, it in page.input.items()}
    if not all(_made(it) for it in given.values() if isinstance(it, str)):
        sys.exit(f"preview: no page: {left_out.get('compute_metrics')}")
    shown, cfg = {Path(path).stem for path in given["figures"]}, page.params.cfg
    given["captions"] = [path for path in given["captions"] if Path(path).stem in shown]
    pairs = zip(cfg["analyses"], page.input.analyses, strict=True)
    cfg["analyses"] = [name for name, path in pairs if _made(path)]
    cfg["more_files"] = {t: [n for n in names if _made(f"{folder}/tables/{n}")] for t, names in cfg["more_files"].items()}
    cfg["partial"] = {**partial, "left_out": left_out}
    page.input = type(page.input)(fromdict=given)
    call(page)
    print(f"Preview of {partial['finished']} of {partial['runs']} runs: {page.output.page}")


def _made(path: str) -> bool:
    return Path(path).is_file()
