# How fine-tuning changes representations: CKA of each layer with that of the pretrained model, on
# the same images.

CKA = f"{METRICS}/tables/cka.csv"
COMPARED_FEATURES = [*PRETRAINED_FEATURES, *TUNED_FEATURES]

REGISTRY.figure(
    "cka_layers",
    analysis="representations",
    question="why",
    inputs={"cka": CKA},
    settings=COMPARED_SETTINGS,
)
REGISTRY.analysis("representations", tables={"cka": CKA}, figures=["cka_layers"], optional=True)


use rule compute_cka_epochs as compute_cka with:
    input:
        manifests=beside("manifest", COMPARED_FEATURES),
        features=ancient(COMPARED_FEATURES),
        fit=TABLES["fit"],
    output:
        **table_files("cka", table=CKA),
    log:
        f"{LOGS}/cka.log",
    params:
        cfg=tabulation("cka:cka_table", ood_datasets=GRID.ood, **STATISTICS),
