# Pass images through the networks of runs, for features of one run on one dataset, features of
# snapshots, inversions of representations, and Fisher information.

from rib.grid.compared_runs import SNAPSHOTS
from rib.grid.evaluation_batches import images_per_gradient
from rib.evaluation.evaluation_settings import (
    FeatureSettings,
    FisherSettings,
    InversionSettings,
)

# Methods with one network; curves and ensembles have several.
ONE_STATE = of_form("finetune", "external", "coefficients", "select", "merge")
MINUTES_OF_FEATURES = 120
MINUTES_OF_FISHER = 240
# Labels with which Fisher information is computed, unless the file's name says otherwise.
SAMPLED = "sampled"


def feature_settings(wildcards):
    settings = FeatureSettings(
        **network_settings(wildcards),
        layers=CONFIG["representations"]["layers"],
        limit=CONFIG["representations"]["images"],
        code=digest_with_merge("compute_features", wildcards.method),
    )
    return to_params(settings)


rule compute_features:
    input:
        unpack(network_inputs),
    output:
        features="results/{family}/{protocol}/features/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors",
        index="results/{family}/{protocol}/features/{model}/{target}/{method}/{size}/{seed}/{dataset}.index.parquet",
        manifest="results/{family}/{protocol}/features/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        provenance="results/{family}/{protocol}/features/{model}/{target}/{method}/{size}/{seed}/{dataset}.provenance.json",
    log:
        "logs/{family}/{protocol}/features/{model}/{target}/{method}/{size}/{seed}/{dataset}.log",
    wildcard_constraints:
        method=f"{PRETRAINED}|{ONE_STATE}",
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=time_limit(MINUTES_OF_FEATURES),
    params:
        cfg=feature_settings,
    script:
        "../scripts/compute_features.py"


def epoch_feature_settings(wildcards):
    settings = FeatureSettings(
        view=view_of(wildcards.model, wildcards.dataset),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        compute=COMPUTE,
        layers=["pre_logits"],  # the head's input
        limit=CONFIG["representations"]["images"],
        code=digest("compute_epoch_features"),
    )
    return to_params(settings)


rule compute_epoch_features:
    input:
        unpack(
            lambda wildcards: dataset_inputs(
                "dataset", wildcards.dataset, PATHS.geometry_of(wildcards.model)
            )
        ),
        model="results/{family}/models/{model}/manifest.json",
        weights=ancient("results/{family}/models/{model}/weights.safetensors"),
        manifest="results/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}/manifest.json",
        snapshots=ancient(
            [
                f"results/{{family}}/{{protocol}}/snapshots/{{model}}/{{target}}/{{method}}/{{size}}/{{seed}}/{name}.safetensors"
                for name in SNAPSHOTS
            ]
        ),
    output:
        features="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors",
        index="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.index.parquet",
        manifest="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        provenance="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.provenance.json",
    log:
        "logs/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=time_limit(MINUTES_OF_FEATURES),
    params:
        cfg=epoch_feature_settings,
    script:
        "../scripts/compute_epoch_features.py"


def inversion_settings(script, wildcards):
    """Settings of a script that inverts representations, or reads inversions."""
    settings = InversionSettings(
        **network_settings(wildcards),
        **CONFIG["stir"],
        code=digest_with_merge(script, wildcards.method),
    )
    return to_params(settings)


rule invert_representation:
    input:
        unpack(network_inputs),
    output:
        inverted="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors",
        index="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.index.parquet",
        manifest="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        provenance="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.provenance.json",
    log:
        "logs/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.log",
    wildcard_constraints:
        method=f"{PRETRAINED}|{ONE_STATE}",
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: attempt
        * memory_of(
            [wildcards.dataset],
            MEMORY.gradients_on_host(wildcards.model, images_per_gradient(EVALUATION_BATCH_SIZE)),
        ),
        runtime=time_limit(720),
    params:
        cfg=lambda wildcards: inversion_settings("invert_representation", wildcards),
    script:
        "../scripts/invert_representation.py"


def inversion_before_tuning(wildcards):
    """Inputs with the inversion of the pretrained model on a job's dataset."""
    run = PATHS.pretrained_runs[wildcards.model]
    file = f"{PATHS.stage('inversions')}/{run}/{wildcards.dataset}"
    return {
        "before": f"{file}.manifest.json",
        "inverted_before": ancient(f"{file}.safetensors"),
    }


rule cross_inversions:
    input:
        unpack(network_inputs),
        unpack(inversion_before_tuning),
        after="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        inverted_after=ancient(
            "results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors"
        ),
    output:
        features="results/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors",
        manifest="results/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        provenance="results/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.provenance.json",
    log:
        "logs/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.log",
    wildcard_constraints:
        method=ONE_STATE,
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=time_limit(MINUTES_OF_FEATURES),
    params:
        cfg=lambda wildcards: inversion_settings("cross_inversions", wildcards),
    script:
        "../scripts/cross_inversions.py"


def fisher_inputs(wildcards):
    """Inputs of a job that computes Fisher information, by name."""
    if wildcards.method == PRETRAINED:
        return {
            **network_files(Run.from_wildcards(wildcards)),
            **reference_inputs("dataset", wildcards.model),
        }
    return network_inputs(wildcards)


def fisher_dataset(wildcards):
    if wildcards.method == PRETRAINED:
        return GRID.reference.dataset.name
    return wildcards.target


def fisher_settings(wildcards):
    """`fisher_images` is 1000 (images, with sampled labels) or 1000_empirical (other kind)."""
    images, _, kind = wildcards.fisher_images.partition("_")
    settings = FisherSettings(
        **network_settings(wildcards),
        fisher_images=int(images),
        kind=kind if kind else SAMPLED,
        code=digest_with_merge("compute_fisher", wildcards.method),
    )
    return to_params(settings)


# For the parents of a merge that uses it, on their training images. For the pretrained model, on
# the pretraining proxy, if trainings on all targets share it.
rule compute_fisher:
    input:
        unpack(fisher_inputs),
    output:
        fisher="results/{family}/{protocol}/fisher/{model}/{target}/{method}/{size}/{seed}/{fisher_images}.safetensors",
        manifest="results/{family}/{protocol}/fisher/{model}/{target}/{method}/{size}/{seed}/{fisher_images}.manifest.json",
        provenance="results/{family}/{protocol}/fisher/{model}/{target}/{method}/{size}/{seed}/{fisher_images}.provenance.json",
    log:
        "logs/{family}/{protocol}/fisher/{model}/{target}/{method}/{size}/{seed}/{fisher_images}.log",
    wildcard_constraints:
        method="|".join([PRETRAINED, of_form("finetune", "external")]),
        fisher_images="[0-9]+(_empirical)?",
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([fisher_dataset(wildcards)])
    resources:
        **GPU_JOB,
        # images are passed one by one
        mem_mb=lambda wildcards, attempt: attempt
        * memory_of(
            [fisher_dataset(wildcards)], MEMORY.gradients_on_host(wildcards.model, images=1)
        ),
        runtime=time_limit(MINUTES_OF_FISHER),
    params:
        cfg=fisher_settings,
    script:
        "../scripts/compute_fisher.py"


# Distances between datasets: from a pretrained model's features, and by compressing pixels. The
# analysis `distances` relates them to effects of fine-tuning.

DATASETS_OF_DISTANCES = [entry.name for entry in DATASETS_READ]


def features_before_tuning(ending):
    """A file of a pretrained model's features on each dataset; `{model}` remains a wildcard."""
    return expand(
        f"results/{{family}}/{{protocol}}/features/{{model}}/none/pretrained/all/0/{{dataset}}.{ending}",
        dataset=DATASETS_OF_DISTANCES,
        allow_missing=True,
    )


rule measure_distances:
    input:
        manifests=features_before_tuning("manifest.json"),
        features=ancient(features_before_tuning("safetensors")),
        index=ancient(features_before_tuning("index.parquet")),
    output:
        distances="results/{family}/{protocol}/distances/{model}/features.csv",
        provenance="results/{family}/{protocol}/distances/{model}/features.provenance.json",
    log:
        "logs/{family}/{protocol}/distances/{model}/features.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=8000,
        runtime=time_limit(240),
    params:
        cfg={"datasets": DATASETS_OF_DISTANCES, "code": digest("measure_distances")},
    script:
        "../scripts/measure_distances.py"


def compression_settings(wildcards):
    return {
        "view": to_params(view_at(wildcards.geometry, *DATASETS_OF_DISTANCES)),
        "excludes_proxy": [name for name in DATASETS_OF_DISTANCES if GRID.excludes_proxy(name)],
        "split": DATASETS_OF_DISTANCES if GRID.split_fractions else [],
        "megabytes": CONFIG["distances"]["compressed_megabytes"],
        "code": digest("compress_datasets"),
    }


# Once for all models with the same geometry.
rule compress_datasets:
    input:
        manifests=lambda wildcards: [
            PATHS.prepared("manifest.json", name, wildcards.geometry)
            for name in DATASETS_OF_DISTANCES
        ],
        indexes=lambda wildcards: ancient(
            [
                PATHS.prepared("index.parquet", name, wildcards.geometry)
                for name in DATASETS_OF_DISTANCES
            ]
        ),
        dataset_files=lambda wildcards: ancient(
            PATHS.prepared_files(wildcards.geometry, DATASETS_OF_DISTANCES)
        ),
        proxy=lambda wildcards: PATHS.proxy(wildcards.geometry, DATASETS_OF_DISTANCES),
        splits=PATHS.splits("{geometry}", DATASETS_OF_DISTANCES),
    output:
        compression="results/{family}/{protocol}/distances/{geometry}/compression.csv",
        provenance="results/{family}/{protocol}/distances/{geometry}/compression.provenance.json",
    log:
        "logs/{family}/{protocol}/distances/{geometry}/compression.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=memory_of(DATASETS_OF_DISTANCES, 4000),
        runtime=time_limit(240),
    params:
        cfg=compression_settings,
    script:
        "../scripts/compress_datasets.py"
