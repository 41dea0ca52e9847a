# Features of one run on one dataset, computed once, for the analyses that compare representations or datasets.

FEATURES = f"{RUNS}/features/{RUN}/{{dataset}}"
# Of the runs that are compared, and how figures show them.
PRETRAINED_FEATURES, TUNED_FEATURES = (
    [f"{FEATURES}.safetensors".format(**vars(run), dataset=dataset) for run in runs for dataset in GRID.ood()]
    for runs in (PRETRAINED_RUNS.values(), COMPARED)
)
# Kernels of a network's layers and of one more, and their sums over objects.
KERNEL_MEMORY = 2000 + CONFIG["representations"]["images"] ** 2 * 8 * 20 // 2**20
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


rule compute_features:
    input:
        unpack(feature_inputs),
    output:
        features=f"{FEATURES}.safetensors",
        index=f"{FEATURES}.index.parquet",
        manifest=f"{FEATURES}.manifest.json",
        provenance=f"{FEATURES}.provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/features/{RUN}/{{dataset}}.log",
    wildcard_constraints:
        # a curve has several states
        method=f"{PRETRAINED}|{of_form('finetune', 'recipe', 'select')}",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory([w.dataset], 4000),
        runtime=60,
    params:
        cfg=lambda w: {
            "parents": checkpointed(w),
            "images": images(w.model),
            "layers": CONFIG["representations"]["layers"],
            "limit": CONFIG["representations"]["images"],
            "batch_size": CONFIG["compute"]["evaluation_batch_size"],
            "compute": COMPUTE,
            "code": digest("features"),
        },
    script:
        "../scripts/features.py"
