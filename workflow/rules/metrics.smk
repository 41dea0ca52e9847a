# Accuracies, RI and mRI with intervals: pure functions of the rows of the whole grid.

ROWS = [f"{RUNS}/evaluate/{RUN}/{suite}.parquet".format(**vars(run)) for run in GRID.runs() for suite in SUITES]
GROUPS = GRID.source_groups()
LEAK_FREE_GROUPS = GRID.leak_free_groups()
TABLES = {
    "accuracy": f"{REPORTS}/tables/accuracy.csv",
    "ri": f"{REPORTS}/tables/ri.csv",
    "mri": f"{REPORTS}/tables/mri.csv",
    "mri_json": f"{REPORTS}/tables/mri.json",
    "ood": f"{REPORTS}/tables/ood.csv",
    "curves": f"{REPORTS}/tables/curves.csv",
}
# Right answers per run, dataset and object, of which comparisons are made. Beside the tables, so that those who pull
# rows and reports alone have it.
COUNTS = f"{REPORTS}/tables/counts.npz"


rule compute_metrics:
    input:
        manifests=[path.replace(".parquet", ".manifest.json") for path in ROWS],
        rows=ancient(ROWS),
    output:
        **TABLES,
        counts=COUNTS,
        provenance=f"{REPORTS}/tables/provenance.json",
    log:
        f"{LOGS}/metrics.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=memory(GRID.datasets, 2000),
        runtime=720 if LARGE_SETS else 30,
    params:
        cfg={
            "among": GRID.ood(),
            "groups": LEAK_FREE_GROUPS,
            "conditions": "; ".join(GRID.conditions()),
            "statistics": CONFIG["statistics"],
            "code": digest("metrics"),
        },
    script:
        "../scripts/metrics.py"
