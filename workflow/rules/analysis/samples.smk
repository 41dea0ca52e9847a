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
            "groups": LEAK_FREE_GROUPS,
            "conditions": "; ".join(GRID.conditions()),
            "statistics": CONFIG["statistics"],
            "code": digest("samples"),
        },
    script:
        "../../scripts/samples.py"


analysis(
    "samples",
    tables={"flips": SAMPLE_TABLES["flips"]},
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
    # A line per run and dataset, thousands on the paper's grid.
    files={"Agreement, flips and calibration of every run on every dataset": [SAMPLE_TABLES["samples"]]},
)
