# Tables, figures and a page of the runs that are finished now; can be used during a run, and starts no job of the grid.

from functools import cache

from report_jobs import finished_runs, preview_jobs

PREVIEW = f"{REPORTS}/preview"


@cache
def preview_of_now():
    """Arguments of rib.reporting.preview.write_preview: what is finished, and the jobs of its reports."""
    runs, of = GRID.runs(), {
        "model": MODEL_LABELS,
        "method": RUN_LABELS["methods"],
        "target": TARGET_LABELS,
    }
    finished = finished_runs(workflow, runs, rows_of, SELECT_ROWS, UPSTREAM)
    partial = {
        "finished": len(finished.runs),
        "runs": len(runs),
        "outdated": finished.outdated,
        "counts": [],
    }
    partial["targets"] = ", ".join(TARGET_LABELS[name] for name in finished.targets)
    for kind, name in [(kind, name) for kind, names in of.items() for name in names]:
        own = [str(run) in finished.runs for run in runs if getattr(run, kind) == name]
        partial["counts"].append([f"{kind} {of[kind][name]}", sum(own), len(own)])
    jobs, partial["left_out"] = preview_jobs(
        workflow,
        [*ALL_TABLES, *ALL_FIGURES, PAGE],
        finished,
        here=lambda path: (
            f"{PREVIEW}{path.removeprefix(METRICS)}" if path.startswith(f"{METRICS}/") else path
        ),
        runs_folder=RUNS,
        logs=f"{LOGS}/preview",
        note=f"PREVIEW of {len(finished.runs)} of {len(runs)} runs; means over {partial['targets']}",
    )
    return {"folder": PREVIEW, "jobs": jobs, "partial": partial}


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
