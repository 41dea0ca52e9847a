# Pretrain models here, from random weights on part of a dataset, as their catalogue entries specify.


def pretraining_inputs(w):
    """Inputs of a pretrain_model job, by name."""
    how = CATALOG.models[w.model].pretrain
    manifests = {
        key: prepared("manifest.json", how[key], GEOMETRY_OF[w.model])
        for key in ("dataset", "test")
    }
    return {
        **manifests,
        "watched": ancient(files_at(GEOMETRY_OF[w.model], [how["dataset"], how["test"]])),
    }


rule pretrain_model:
    input:
        unpack(pretraining_inputs),
    output:
        **job_files(
            MODEL,
            inside=True,
            weights="weights.safetensors",
            description="model.json",
            history="history.csv",
        ),
    log:
        f"{LOGS}/models/{{model}}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, TRAINED_HERE)) or "(?!)",
    conda:
        "../../envs/torch.yaml"
    threads: lambda w: threads_for([CATALOG.models[w.model].pretrain["dataset"]])
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory_of([CATALOG.models[w.model].pretrain["dataset"]], 4000),
        runtime=lambda w: (
            2880 if CATALOG.models[w.model].pretrain["dataset"] in LARGE_DATASETS else 240
        ),
    params:
        cfg=lambda w: {**GRID.conversion(w.model), "code": digest("pretrain_model")},
    script:
        "../scripts/pretrain_model.py"
