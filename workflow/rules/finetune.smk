# One pretrained model trained on one target by one method. Only the tensors that changed are stored.


rule finetune:
    input:
        model=f"{MODEL}/manifest.json",
        weights=ancient(MODEL_FILES),
        target=lambda w: prepared("manifest.json", w.target, w.model),
        images=lambda w: ancient([prepared(file, w.target, w.model) for file in PREPARED_FILES]),
        reference=reference("manifest.json"),
        reference_images=lambda w: ancient([path for file in PREPARED_FILES if (path := reference(file)(w))]),
        start=checkpoints("manifest.json", parents),
        start_weights=lambda w: ancient(checkpoints("checkpoint.safetensors", parents)(w)),
    output:
        checkpoint=f"{RUNS}/finetune/{RUN}/checkpoint.safetensors",
        history=f"{RUNS}/finetune/{RUN}/history.csv",
        manifest=f"{RUNS}/finetune/{RUN}/manifest.json",
        provenance=f"{RUNS}/finetune/{RUN}/provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/finetune/{RUN}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        cfg=lambda w: method_job("finetune", w.method, training=GRID.training(), shares=GRID.shares, compute=COMPUTE),
    script:
        "../scripts/finetune.py"
