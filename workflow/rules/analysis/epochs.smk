# CKA of the features before the head with the pretrained model's, in the course of training. The runs are trained once
# more and keep their weights at ten times, so that the analysis does not change the settings of the ordinary runs.

CKA_EPOCHS = f"{REPORTS}/tables/cka_epochs.csv"
SNAPSHOTS = f"{RUNS}/snapshots/{RUN_PATH}"
KEPT = [f"snapshot{number}" for number in range(1, 11)]  # at equal distances, whatever the number of epochs
EPOCH_FEATURES = f"{RUNS}/epochs/{RUN_PATH}/{{dataset}}"
EPOCH_FILES = [
    f"{EPOCH_FEATURES}.safetensors".format(**vars(run), dataset=dataset)
    for run in COMPARED
    if GRID.methods[run.method].trains
    for dataset in GRID.ood
]

REGISTRY.figure(
    "cka_epochs",
    inputs={"cka_epochs": CKA_EPOCHS},
    settings={
        **COMPARED_SETTINGS,
        "methods": {n: style for n, style in COMPARED_SETTINGS["methods"].items() if GRID.methods[n].trains},
    },
)
REGISTRY.analysis("epochs", tables={"cka_epochs": CKA_EPOCHS}, figures=["cka_epochs"], optional=True)


use rule finetune as keep_snapshots with:
    output:
        **{name: f"{SNAPSHOTS}/{name}.safetensors" for name in KEPT},
        history=f"{SNAPSHOTS}/history.csv",
        manifest=f"{SNAPSHOTS}/manifest.json",
        provenance=f"{SNAPSHOTS}/provenance.json",
    log:
        f"{RUN_LOGS}/snapshots/{RUN_PATH}.log",


use rule compute_features as compute_epoch_features with:
    input:
        unpack(lambda w: dataset_inputs("dataset", w.dataset, geometry_of(w.model))),
        model=f"{MODEL}/manifest.json",
        weights=ancient(MODEL_WEIGHTS),
        manifest=f"{SNAPSHOTS}/manifest.json",
        snapshots=ancient([f"{SNAPSHOTS}/{name}.safetensors" for name in KEPT]),
    output:
        features=f"{EPOCH_FEATURES}.safetensors",
        index=f"{EPOCH_FEATURES}.index.parquet",
        manifest=f"{EPOCH_FEATURES}.manifest.json",
        provenance=f"{EPOCH_FEATURES}.provenance.json",
    log:
        f"{RUN_LOGS}/epochs/{RUN_PATH}/{{dataset}}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    params:
        cfg=lambda w: network_settings("features:compute_epoch_features", w, limit=CONFIG["representations"]["images"]),


use rule compute_metrics as compute_cka_epochs with:
    input:
        before_manifests=beside("manifest", PRETRAINED_FEATURES),
        before=ancient(PRETRAINED_FEATURES),
        after_manifests=beside("manifest", EPOCH_FILES),
        after=ancient(EPOCH_FILES),
        fit=TABLES["fit"],
    output:
        **table_files("cka_epochs", table=CKA_EPOCHS),
    log:
        f"{LOGS}/cka_epochs.log",
    resources:
        **KERNELS,
    params:
        cfg=tabulation(
            "cka:write_cka_epochs",
            snapshots=len(KEPT),
            ood_datasets=GRID.ood,
            conditions=CONDITIONS,
            confidence=CONFIDENCE,
        ),
