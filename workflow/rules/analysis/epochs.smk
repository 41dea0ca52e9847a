# When fine-tuning changes what the head reads: CKA with the pretrained model's after each epoch. For this the runs are
# trained once more with their weights kept on the way, so that a run without the analysis is not another run.

CKA_EPOCHS = f"{REPORTS}/tables/cka_epochs.csv"
EPOCHS = GRID.training()["epochs"]
SNAPSHOTS = f"{RUNS}/snapshots/{RUN}"
EPOCH_FEATURES = f"{RUNS}/epochs/{RUN}/{{dataset}}"
EPOCH_FILES = [
    f"{EPOCH_FEATURES}.safetensors".format(**vars(run), dataset=dataset)
    for run in COMPARED
    if GRID.methods[run.method].trains
    for dataset in GRID.ood()
]
TRAINED_LOOK = {
    **COMPARED_LOOK,
    "methods": {name: look for name, look in COMPARED_LOOK["methods"].items() if GRID.methods[name].trains},
}

analysis(
    "epochs",
    tables={"cka_epochs": CKA_EPOCHS},
    figures={"cka_epochs": ({"cka_epochs": CKA_EPOCHS}, TRAINED_LOOK)},
    optional=True,
)


rule keep_snapshots:
    input:
        unpack(training_inputs),
    output:
        **{f"epoch{number}": f"{SNAPSHOTS}/epoch{number}.safetensors" for number in range(1, EPOCHS + 1)},
        history=f"{SNAPSHOTS}/history.csv",
        manifest=f"{SNAPSHOTS}/manifest.json",
        provenance=f"{SNAPSHOTS}/provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/snapshots/{RUN}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    conda:
        "../../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory([w.target], 4000),
        runtime=lambda w: 2880 if w.target in LARGE_SETS else 240,
    params:
        cfg=lambda w: training("snapshots", w),
    script:
        "../../scripts/snapshots.py"


rule compute_epoch_features:
    input:
        unpack(dataset_inputs),
        model=f"{MODEL}/manifest.json",
        weights=ancient(MODEL_WEIGHTS),
        manifest=f"{SNAPSHOTS}/manifest.json",
        snapshots=ancient([f"{SNAPSHOTS}/epoch{number}.safetensors" for number in range(1, EPOCHS + 1)]),
    output:
        features=f"{EPOCH_FEATURES}.safetensors",
        index=f"{EPOCH_FEATURES}.index.parquet",
        manifest=f"{EPOCH_FEATURES}.manifest.json",
        provenance=f"{EPOCH_FEATURES}.provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/epochs/{RUN}/{{dataset}}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    conda:
        "../../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory([w.dataset], 4000),
        runtime=120,
    params:
        cfg=lambda w: {
            "images": images(w.model),
            "limit": CONFIG["representations"]["images"],
            "batch_size": CONFIG["compute"]["evaluation_batch_size"],
            "compute": COMPUTE,
            "code": digest("epochs"),
        },
    script:
        "../../scripts/epochs.py"


rule compute_cka_epochs:
    input:
        before_manifests=[path.replace(".safetensors", ".manifest.json") for path in PRETRAINED_FEATURES],
        before=ancient(PRETRAINED_FEATURES),
        after_manifests=[path.replace(".safetensors", ".manifest.json") for path in EPOCH_FILES],
        after=ancient(EPOCH_FILES),
    output:
        table=CKA_EPOCHS,
        provenance=f"{REPORTS}/tables/cka_epochs.provenance.json",
    log:
        f"{LOGS}/cka_epochs.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=KERNEL_MEMORY,
        runtime=120,
    params:
        cfg={
            "epochs": EPOCHS,
            "among": GRID.ood(),
            "conditions": "; ".join(GRID.conditions()),
            "confidence": CONFIDENCE,
            "code": digest("cka_epochs"),
        },
    script:
        "../../scripts/cka_epochs.py"


rule epochs:
    input:
        CKA_EPOCHS,
        figure_files(["cka_epochs"]),
