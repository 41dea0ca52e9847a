# Features of one run on one dataset, computed once, for the analyses that compare representations or datasets.

FEATURES = f"{RUNS}/features/{RUN}/{{dataset}}"


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
            "shares": GRID.shares,
            "layers": CONFIG["representations"]["layers"],
            "limit": CONFIG["representations"]["images"],
            "batch_size": CONFIG["compute"]["evaluation_batch_size"],
            "compute": COMPUTE,
            "code": digest("features"),
        },
    script:
        "../scripts/features.py"
