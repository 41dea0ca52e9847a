# Pretrain models here, from random weights on part of a dataset, as their catalogue entries
# specify. Published models whose entries say how they were made are pretrained again on demand
# (snakemake pretrain_again), into a folder of their own: no result depends on it.

from rib.training.settings import PretrainingSettings, TrainingSettings

PRETRAINED_AGAIN = f"results/{FAMILY}/pretrained_again/{{model}}"
PUBLISHED_WITH_RECIPE = [
    name for name, model in GRID.models.items() if model.pretrain and not model.is_trained_here
]


def pretraining_inputs(wildcards):
    """Inputs of a job that pretrains a model: its dataset, and another to test it on, by name."""
    pretraining = CATALOG.models[wildcards.model].pretrain
    dataset = pretraining["dataset"]
    test_dataset = pretraining["test"]
    geometry = PATHS.geometry_of(wildcards.model)
    return {
        "dataset": PATHS.prepared("manifest.json", dataset, geometry),
        "test": PATHS.prepared("manifest.json", test_dataset, geometry),
        "dataset_files": ancient(PATHS.prepared_files(geometry, [dataset, test_dataset])),
    }


def pretraining_settings(wildcards):
    """Settings of a job that pretrains a model."""
    facts = GRID.conversion(wildcards.model)
    pretraining = CATALOG.models[wildcards.model].pretrain
    settings = PretrainingSettings(
        entry={**facts["entry"], "source": None, "tokenizer": [], "pretrain": pretraining},
        num_classes=facts["num_classes"],
        training=from_params(TrainingSettings, GRID.pretraining(wildcards.model)),
        view=view_of(wildcards.model, pretraining["dataset"], pretraining["test"]),
        compute=COMPUTE,
        code=digest("pretrain_model"),
    )
    return to_params(settings)


def pretraining_dataset(wildcards):
    """The dataset on which a model is pretrained."""
    return CATALOG.models[wildcards.model].pretrain["dataset"]


rule pretrain_model:
    input:
        unpack(pretraining_inputs),
    output:
        weights="results/{family}/models/{model}/weights.safetensors",
        description="results/{family}/models/{model}/model.json",
        history="results/{family}/models/{model}/history.csv",
        manifest="results/{family}/models/{model}/manifest.json",
        provenance="results/{family}/models/{model}/provenance.json",
    log:
        "logs/{family}/models/{model}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, TRAINED_HERE)) or "(?!)",
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([pretraining_dataset(wildcards)])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_training(
            wildcards, [pretraining_dataset(wildcards)], attempt
        ),
        runtime=lambda wildcards: (
            MINUTES_OF_LONG_TRAINING
            if pretraining_dataset(wildcards) in LARGE_DATASETS_READ
            else MINUTES_OF_TRAINING
        ),
    params:
        cfg=pretraining_settings,
    script:
        "../scripts/pretrain_model.py"


use rule pretrain_model as pretrain_model_again with:
    output:
        weights="results/{family}/pretrained_again/{model}/weights.safetensors",
        description="results/{family}/pretrained_again/{model}/model.json",
        history="results/{family}/pretrained_again/{model}/history.csv",
        manifest="results/{family}/pretrained_again/{model}/manifest.json",
        provenance="results/{family}/pretrained_again/{model}/provenance.json",
    log:
        "logs/{family}/pretrained_again/{model}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, PUBLISHED_WITH_RECIPE)) or "(?!)",


rule pretrain_again:
    input:
        expand(f"{PRETRAINED_AGAIN}/weights.safetensors", model=PUBLISHED_WITH_RECIPE),
