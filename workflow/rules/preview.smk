# Tables, figures and a page of the runs that are finished now; can be used during a run, and starts
# no job of the grid.

from functools import cache

from report_jobs import finished_runs, preview_jobs
from rib.reporting.settings import FinishedShare, PreviewDescription

PREVIEW = f"{REPORTS}/preview"


def in_preview(path):
    """Where a preview has a file of METRICS; other files are where they are."""
    return PREVIEW + path.removeprefix(METRICS) if path.startswith(f"{METRICS}/") else path


def finished_shares(finished):
    """How many runs of each model, method and target are finished, given the names of those."""
    runs = GRID.runs()
    shares = []
    for attribute, labels in (
        ("model", MODEL_LABELS),
        ("method", RUN_LABELS["methods"]),
        ("target", TARGET_LABELS),
    ):
        for name, label in labels.items():
            runs_of_name = [run for run in runs if getattr(run, attribute) == name]
            share = FinishedShare(
                subject=f"{attribute} {label}",
                finished=sum(str(run) in finished for run in runs_of_name),
                runs=len(runs_of_name),
            )
            shares.append(share)
    return shares


@cache
def preview_of_now():
    """Folder and jobs of a preview of what is finished now, and how far the grid is."""
    runs = GRID.runs()
    finished = finished_runs(workflow, runs, rows_of, SELECT_ROWS, UPSTREAM)
    targets = ", ".join(TARGET_LABELS[name] for name in finished.targets)
    jobs, left_out = preview_jobs(
        workflow,
        [*ALL_TABLES, *ALL_FIGURES, PAGE],
        finished,
        here=in_preview,
        runs_folder=RUNS,
        logs=f"{LOGS}/preview",
        note=f"PREVIEW of {len(finished.runs)} of {len(runs)} runs; means over {targets}",
    )
    description = PreviewDescription(
        finished=len(finished.runs),
        runs=len(runs),
        outdated=finished.outdated,
        counts=finished_shares(finished.runs),
        targets=targets,
        left_out=left_out,
    )
    return {"folder": PREVIEW, "jobs": jobs, "partial": to_params(description)}


rule preview:
    log:
        f"{LOGS}/preview/compute_metrics.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        preview=lambda w: preview_of_now(),
    script:
        "../scripts/preview.py"
