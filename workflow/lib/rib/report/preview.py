"""A preview of an unfinished grid: tables, figures and the page of the runs that are finished.

It is made by the rules of a run, which Snakemake reads once more for the finished runs only (see
workflow/rules/reported_runs.smk). This happens in a private folder with links to results, so that a
run at work is not disturbed: locks, records and unfinished files of the two are apart.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log_lines, print_lines
from rib.base.settings import replaced
from rib.jobs.job import WORK, private
from rib.records.hashing import MEMORY
from rib.report.settings import PreviewJobSettings, PreviewSettings

# Environment variable of the Snakemake process that makes a preview: file with its PreviewSettings.
PREVIEW = "RIB_PREVIEW"
SETTINGS_FILE = "preview.json"
# A preview of more runs draws fewer bootstrap replicates, and leaves out what reads all rows again
# or has a line for each run or class.
MOST_RUNS = 1000
REPLICATES = 200
SLOW = [
    "compare_samples",
    "compare_slices",
    "explain_cells",
    "accuracy_matrix",
    "ri_matrix",
    "classes",
]
# At once two jobs, since a grid may be running on the other cores. Inputs count as they are: only
# what they are newer than is made again.
OPTIONS = (
    *("--cores", "2", "--executor", "local", "--scheduler", "greedy", "--keep-going"),
    *("--rerun-triggers", "mtime", "--nolock", "--workflow-profile", "none"),
)


def is_large(runs: int) -> bool:
    """Whether a preview of so many runs leaves out what is slow."""
    return runs > MOST_RUNS


def settings_of_preview() -> PreviewSettings | None:
    """Settings of the preview that this Snakemake process makes; None if it makes none."""
    path = os.environ.get(PREVIEW)
    if path is None:
        return None
    return PreviewSettings.model_validate_json(Path(path).read_text(encoding="utf-8"))


def write_preview(settings: PreviewJobSettings, log_file: str) -> None:
    """Make a preview in place of an earlier one.

    If a job fails, those that don't need it go on, and the page names it. If another preview of
    this project is being made, this one waits for it.

    Args:
        log_file: log of the job that calls this.

    Raises:
        UserError: the tables of accuracy and RI, which all else needs, or the page failed.
    """
    with private("preview", log_file, {}, resumes=None):
        for earlier in (settings.folder, settings.logs):
            shutil.rmtree(earlier, ignore_errors=True)
        project = WORK / "preview"
        _link_project(project, settings)
        new_preview = project / settings.folder
        page = new_preview / "index.html"
        _run_snakemake(project, settings, settings.preview)
        has_tables = (new_preview / "tables/mri.csv").is_file()
        without_failed = replaced(settings.preview, all_were_tried=True)
        # Once without tables that failed; then, if figures waited for these tables and fail
        # themselves, without the figures.
        for _ in range(2):
            if has_tables and not page.is_file():
                _run_snakemake(project, settings, without_failed)
        if not page.is_file():
            raise UserError(f"there is no page; {log_file} says why.")
        settings.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new_preview, settings.folder)
    description = settings.preview.description
    print_lines(
        f"Preview of {description.finished} of {description.runs} runs: "
        f"{settings.folder / page.name}"
    )


def _link_project(folder: Path, settings: PreviewJobSettings) -> None:
    """Prepare a folder in which Snakemake finds the project's results and configuration."""
    MEMORY.mkdir(parents=True, exist_ok=True)
    for path in (*settings.linked, MEMORY):  # MEMORY: large files are not hashed again
        if not path.is_absolute():
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    write_text(folder / "config.yaml", json.dumps(settings.config, indent=1))


def _run_snakemake(folder: Path, settings: PreviewJobSettings, preview: PreviewSettings) -> None:
    """Run Snakemake in a prepared folder; all that it prints is written to the log of this job."""
    settings_file = (folder / SETTINGS_FILE).absolute()
    write_text(settings_file, preview.model_dump_json())
    completed = subprocess.run(
        [*settings.command, *OPTIONS],
        cwd=folder,
        env={**os.environ, PREVIEW: str(settings_file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    log_lines(completed.stdout)
