# One pretrained model trained on one target by one method. Only the tensors that changed are stored.


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
        gpu=GPU,
        mem_mb=lambda w: memory([w.target], 4000),
        runtime=lambda w: 2880 if w.target in LARGE_SETS else 240,
    params:
        cfg=lambda w: training("finetune", w),
    script:
        "../scripts/finetune.py"
