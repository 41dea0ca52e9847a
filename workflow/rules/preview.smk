# Tables, figures and a page of the runs that are finished now; can be used during a run, and starts no job of the grid.

from report_jobs import finished_runs, preview_jobs, report_jobs

PREVIEW = f"{REPORTS}/preview"


@cache
def preview_of_now():
    """Settings of the preview: its jobs, what it lacks, and how many runs of the grid are finished."""
    runs = GRID.runs()
    finished = finished_runs(workflow, runs, rows_of, UPSTREAM)
    labels = {"model": MODEL_LABELS, "method": RUN_LABELS["methods"], "target": TARGET_LABELS}
    partial = {
        "finished": len(finished.runs),
        "runs": len(runs),
        "outdated": finished.outdated,
        "targets": [TARGET_LABELS[name] for name in finished.targets],
        "rows": [
            (kind, label, sum(str(run) in finished.runs for run in own), len(own))
            for kind, names in labels.items()
            for name, label in names.items()
            if (own := [run for run in runs if getattr(run, kind) == name])
        ],
    }
    note = f"PREVIEW of {partial['finished']} of {partial['runs']} runs; means over {', '.join(partial['targets'])}"
    jobs, left_out = preview_jobs(
        report_jobs(workflow, [*ALL_TABLES, *ALL_FIGURES, PAGE], f"{REPORTS}/"),
        finished,
        runs_folder=RUNS,
        moved=lambda path: path.replace(f"{REPORTS}/", f"{PREVIEW}/", 1) if path.startswith(f"{REPORTS}/") else path,
        logs=f"{LOGS}/preview",
        note=note,
    )
    return {"folder": PREVIEW, "jobs": jobs, "partial": {**partial, "left_out": left_out}}


rule preview:
    log:
        "logs/preview.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        preview=lambda w: preview_of_now(),
    script:
        "../scripts/preview.py"
