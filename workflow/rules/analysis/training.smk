# Training history by epoch.
# Uses CHECKPOINT and TRAINED_RUNS of finetune.smk, SMALL_TABLES, TABLES and table_files of
# metrics.smk, and labels and styles of figures.smk.

from rib.statistics.settings import TableSettings

TRAINING = f"{METRICS}/tables/training.csv"

REGISTRY.figure(
    "training",
    analysis="training",
    question="trust",
    inputs={"training": TRAINING},
    settings={
        **ONE_MODEL,
        "methods": {
            name: style for name, style in METHOD_STYLES.items() if GRID.methods[name].trains
        },
        "targets": TARGET_LABELS,
    },
)
REGISTRY.analysis(
    "training", tables={}, figures=["training"], files={"Training history by epoch": [TRAINING]}
)


def history_settings(wildcards):
    """Settings of the job that gathers training histories."""
    settings = TableSettings(conditions=CONDITIONS, code=digest("gather_histories"))
    return to_params(settings)


rule gather_histories:
    input:
        histories=[
            f"{CHECKPOINT}/history.csv".format(**vars(run))
            for run in TRAINED_RUNS
            if run in REPORTED_RUNS
        ],
        fit=TABLES["fit"],
    output:
        **table_files("training", training=TRAINING),
    log:
        f"{LOGS}/training.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **SMALL_TABLES,
    params:
        cfg=history_settings,
    script:
        "../../scripts/gather_histories.py"
