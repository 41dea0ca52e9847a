# Image by image: do pretrained and fine-tuned models agree, what flipped, how well calibrated is each?
# One job reads every run's rows, one run at a time; a job per run would cost more in starting than in reading.

SAMPLE_ROWS = [
    f"{RUNS}/evaluate/{RUN}/{suite}.parquet".format(**vars(run))
    for run in GRID.runs()
    for suite in SUITES
    if run.method not in CURVES
]
SAMPLE_TABLES = {name: f"{REPORTS}/tables/{name}.csv" for name in ("samples", "flips")}


rule compare_samples:
    input:
        manifests=[path.replace(".parquet", ".manifest.json") for path in SAMPLE_ROWS],
        rows=ancient(SAMPLE_ROWS),
    output:
        **SAMPLE_TABLES,
        provenance=f"{REPORTS}/tables/samples.provenance.json",
    log:
        f"{LOGS}/samples.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=memory(GRID.datasets, 2000),
        runtime=720 if LARGE_SETS else 30,
    params:
        cfg={
            "among": GRID.ood(),
            # Of held-out parts nothing was trained on, whatever it was made from.
            "groups": GROUPS if CONFIG["leak_free"] and GRID.shares is None else None,
            "conditions": "; ".join(GRID.conditions()),
            "statistics": CONFIG["statistics"],
            "code": digest("samples"),
        },
    script:
        "../../scripts/samples.py"


analysis(
    "samples",
    tables=SAMPLE_TABLES,
    figures={
        "flips": (
            {"flips": SAMPLE_TABLES["flips"]},
            {"models": LABELS, "methods": METHOD_LABELS, "confidence": CONFIDENCE},
        ),
        "calibration": (
            {"samples": SAMPLE_TABLES["samples"]},
            {"models": LABELS, "methods": METHOD_LABELS, "datasets": DATASET_LABELS},
        ),
    },
    optional=False,
)
