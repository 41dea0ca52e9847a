# How fine-tuning changes representations: CKA of each layer with that of the pretrained model, on
# the same images.

# Uses PRETRAINED_FEATURES, TUNED_FEATURES, KERNELS and COMPARED_SETTINGS of features.smk, and TABLES
# of metrics.smk.

from rib.analyses.representations.settings import CkaSettings

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


def cka_settings(wildcards):
    """Settings of the job that compares representations."""
    settings = CkaSettings(
        ood_datasets=GRID.ood,
        confidence=CONFIDENCE,
        conditions=CONDITIONS,
        code=digest("compute_cka"),
    )
    return to_params(settings)


rule compute_cka:
    input:
        manifests=beside("manifest", COMPARED_FEATURES),
        features=ancient(COMPARED_FEATURES),
        fit=TABLES["fit"],
    output:
        **table_files("cka", cka=CKA),
    log:
        f"{LOGS}/cka.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **KERNELS,
    params:
        cfg=cka_settings,
    script:
        "../../scripts/compute_cka.py"
