# How fine-tuning changes representations: CKA of each layer with the pretrained model's, on the same images.

CKA = f"{REPORTS}/tables/cka.csv"
COMPARED_FEATURES = [*PRETRAINED_FEATURES, *TUNED_FEATURES]

analysis(
    "representations",
    tables={"cka": CKA},
    figures={"cka_layers": ({"cka": CKA}, COMPARED_LOOK)},
    optional=True,
)


rule compute_cka:
    input:
        manifests=[path.replace(".safetensors", ".manifest.json") for path in COMPARED_FEATURES],
        features=ancient(COMPARED_FEATURES),
    output:
        table=CKA,
        provenance=f"{REPORTS}/tables/cka.provenance.json",
    log:
        f"{LOGS}/cka.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=KERNEL_MEMORY,
        runtime=120,
    params:
        cfg={
            "among": GRID.ood(),
            "conditions": "; ".join(GRID.conditions()),
            "confidence": CONFIDENCE,
            "code": digest("cka"),
        },
    script:
        "../../scripts/cka.py"


rule representations:
    input:
        CKA,
        figure_files(["cka_layers"]),
