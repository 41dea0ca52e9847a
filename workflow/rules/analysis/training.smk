# How fine-tuning went, epoch by epoch.

HISTORIES = [
    f"{RUNS}/finetune/{RUN}/history.csv".format(**vars(run))
    for run in GRID.runs()
    if run.method != PRETRAINED and GRID.methods[run.method].trains
]
TRAINING = f"{REPORTS}/tables/training.csv"


rule gather_histories:
    input:
        histories=HISTORIES,
    output:
        table=TRAINING,
        provenance=f"{REPORTS}/tables/training.provenance.json",
    log:
        f"{LOGS}/training.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        cfg={"conditions": "; ".join(GRID.conditions()), "code": digest("training")},
    script:
        "../../scripts/training.py"


analysis(
    "training",
    tables={},
    figures={
        "training": (
            {"training": TRAINING},
            {"model": FIRST, "model_label": LABELS[FIRST], "methods": METHOD_LOOKS, "targets": TARGET_LABELS},
        ),
    },
    optional=False,
    files={"How fine-tuning went, by epoch": [TRAINING]},
)
