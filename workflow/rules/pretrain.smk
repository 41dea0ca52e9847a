# Pretrain models here, from random weights on part of a dataset, as their catalogue entries
# specify.

from rib.training.settings import PretrainingSettings, TrainingSettings


def pretraining_inputs(w):
    """Inputs of a pretrain_model job, by name."""
    how = CATALOG.models[w.model].pretrain
    geometry = GEOMETRY_OF[w.model]
    return {
        "dataset": prepared("manifest.json", how["dataset"], geometry),
        "test": prepared("manifest.json", how["test"], geometry),
        "watched": ancient(files_at(geometry, [how["dataset"], how["test"]])),
    }


def pretraining_settings(w):
    """Settings of a job that pretrains a model."""
    facts = GRID.conversion(w.model)
    settings = PretrainingSettings(
        entry=facts["entry"],
        num_classes=facts["num_classes"],
        training=from_params(TrainingSettings, GRID.pretraining(w.model)),
        view=VIEW_OF[w.model],
        compute=COMPUTE,
        code=digest("pretrain_model"),
    )
    return to_params(settings)


def pretraining_dataset(w):
    """The dataset on which a model is pretrained."""
    return CATALOG.models[w.model].pretrain["dataset"]


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
    threads: lambda w: threads_for([pretraining_dataset(w)])
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory_of([pretraining_dataset(w)], 4000),
        runtime=lambda w: (
            MINUTES_OF_LONG_TRAINING
            if pretraining_dataset(w) in LARGE_DATASETS
            else MINUTES_OF_TRAINING
        ),
    params:
        cfg=pretraining_settings,
    script:
        "../scripts/pretrain_model.py"
