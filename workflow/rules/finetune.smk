# One pretrained model trained on one target by one method. Only the tensors that changed are stored.


def training_inputs(w):
    """Inputs of a finetune job by name."""
    start = GRID.methods[w.method].parents
    return {
        "model": f"{MODEL}/manifest.json".format(model=w.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=w.model)),
        "target": target("manifest.json", w),
        "images": ancient([target(file, w) for file in PREPARED_FILES]),
        "reference": reference("manifest.json", w),
        "apart": ancient(apart("index.parquet", w, [w.target])),
        "start": checkpoints("manifest.json", w, start),
        "start_weights": ancient(checkpoints("checkpoint.safetensors", w, start)),
    }


rule finetune:
    input:
        unpack(training_inputs),
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
        cfg=lambda w: method_job(
            "finetune",
            w.method,
            training=GRID.training(),
            images=images(w.model),
            shares=GRID.shares,
            compute=COMPUTE,
        ),
    script:
        "../scripts/finetune.py"
