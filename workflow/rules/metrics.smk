# Compute accuracies, RI and mRI with confidence intervals from all rows of the grid: for the page,
# and in a separate folder for an analysis on demand outside the run.

from rib.statistics.statistics_settings import grid_table_settings, metrics_of


rule compute_metrics:
    input:
        **inputs_of_metrics(GRID.runs()),
        # Labels that seem wrong fail their check and so stop the run. Trainings don't wait for it:
        # a job that waits for an `ancient` file would miss its own changed settings in a run that
        # makes that file again.
        label_verdicts=PATHS.label_verdicts(),
    output:
        **{name: f"reports/{{report}}/tables/{name}.csv" for name in metrics_of(GRID)},
        mri_json="reports/{report}/tables/mri.json",  # for `dvc metrics`
        # Right answers per run, dataset and object, for comparisons.
        counts="reports/{report}/tables/counts.npz",
        provenance="reports/{report}/tables/provenance.json",
    log:
        "logs/reports/{report}/metrics.log",
    wildcard_constraints:
        report=f"{re.escape(Path(REPORT).name)}(/[a-z_]+)?",  # fashion, fashion/stir
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=memory_of(GRID.datasets, 2000),
        runtime=time_limit(720 if LARGE_DATASETS else 30),
    params:
        cfg=to_params(grid_table_settings(GRID, digest("compute_metrics"))),
    script:
        "../scripts/compute_metrics.py"
