# Training history by epoch.

TRAINING = f"{METRICS}/tables/training.csv"

REGISTRY.figure(
    "training",
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


use rule compare_published as gather_histories with:
    input:
        histories=[
            f"{CHECKPOINT}/history.csv".format(**vars(run))
            for run in TRAINED_RUNS
            if run in REPORTED_RUNS
        ],
        fit=TABLES["fit"],
    output:
        **table_files("training", table=TRAINING),
    log:
        f"{LOGS}/training.log",
    params:
        cfg=tabulation("training:training_table", conditions=CONDITIONS),
