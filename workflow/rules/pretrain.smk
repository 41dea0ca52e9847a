# Models of which the entry says how they are trained here, from random weights on a part of a dataset.


rule pretrain_model:
    input:
        unpack(pretraining_inputs),
    output:
        weights=f"{MODEL}/weights.safetensors",
        description=f"{MODEL}/model.json",
        history=f"{MODEL}/history.csv",
        manifest=f"{MODEL}/manifest.json",
        provenance=f"{MODEL}/provenance.json",
    log:
        f"{LOGS}/models/{{model}}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, TRAINED_HERE)) or "(?!)",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory([CATALOG.models[w.model].pretrain["dataset"]], 4000),
        runtime=lambda w: 2880 if CATALOG.models[w.model].pretrain["dataset"] in LARGE_SETS else 240,
    params:
        cfg=pretraining,
    script:
        "../scripts/pretrain.py"
