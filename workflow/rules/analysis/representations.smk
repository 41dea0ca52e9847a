# How fine-tuning changes representations: CKA of each layer with the pretrained model's, on the same images.

CKA = f"{REPORTS}/tables/cka.csv"
COMPARED_FEATURES = [
    f"{FEATURES}.safetensors".format(**vars(run), dataset=dataset)
    for run in [*PRETRAINED_RUNS.values(), *COMPARED]
    for dataset in GRID.ood()
]
COMPARED_LOOK = {
    "models": LABELS,
    "methods": {
        name: {"label": METHOD_LABELS[name], **method.style}
        for name, method in GRID.methods.items()
        if name in {run.method for run in COMPARED}
    },
    "targets": {name: label for name, label in TARGET_LABELS.items() if name in {run.target for run in COMPARED}},
    "confidence": CONFIDENCE,
}

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
        # kernels of two networks' layers, and their sums over objects
        mem_mb=2000 + CONFIG["representations"]["images"] ** 2 * 8 * 14 // 2**20,
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
