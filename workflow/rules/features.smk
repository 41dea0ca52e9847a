# Pass images through the networks of runs: features of one run on one dataset, for analyses that
# compare representations or datasets; features and weights in the course of training; inversions of
# representations; and Fisher information.

from rib.config.compared_runs import SNAPSHOTS
from rib.evaluation.settings import (
    EpochFeatureSettings,
    FeatureSettings,
    FisherSettings,
    InversionJobSettings,
    InversionSettings,
)

# Methods with one state; curves and ensembles have several.
ONE_STATE = of_form("finetune", "external", "weights", "select", "merge")
MINUTES_OF_FEATURES = 120
MINUTES_OF_FISHER = 240
# Labels of which Fisher information is computed, unless its file says otherwise.
SAMPLED = "sampled"
INVERSION = from_params(InversionSettings, CONFIG["stir"])


def network_inputs(wildcards):
    """Inputs of a job that passes images through a run's network, by name.

    They are images of its dataset, or of the target if it has none.
    """
    return {
        **network_files(run_of(wildcards)),
        **dataset_inputs(
            "dataset",
            wildcards.get("dataset", wildcards.target),
            PATHS.geometry_of(wildcards.model),
        ),
    }


def merge_of_run(method):
    """How the network of a method's run is merged; None if it isn't, or was selected."""
    if method == PRETRAINED:
        return None
    return merge_of(method, {method: GRID.methods[method].settings})


def network_settings(wildcards):
    """Fields of the settings of a job that passes images through a run's network, but `code`.

    They are images of its dataset, or of the target if it has none; of the pretrained model, which
    has no target, those of the pretraining proxy.
    """
    dataset = wildcards.get("dataset", wildcards.target)
    if dataset == NO_TARGET:
        dataset = GRID.reference.dataset.name
    return {
        "parents": PATHS.parents[wildcards.method],
        "merge": merge_of_run(wildcards.method),
        "view": view_of(wildcards.model, dataset),
        "evaluation_batch_size": EVALUATION_BATCH_SIZE,
        "compute": COMPUTE,
    }


def feature_settings(wildcards):
    """Settings of a job that computes features."""
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
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=MINUTES_OF_FEATURES,
    params:
        cfg=feature_settings,
    script:
        str(WORKFLOW / "scripts/compute_features.py")


# Runs are trained once more and keep their weights at ten times, so that the settings of the
# ordinary runs don't change. The analysis `epochs` shows them.
use rule finetune as keep_snapshots with:
    input:
        unpack(training_inputs),
    output:
        **{
            name: f"results/{{family}}/{{protocol}}/snapshots/{{model}}/{{target}}/{{method}}/{{size}}/{{seed}}/{name}.safetensors"
            for name in SNAPSHOTS
        },
        history="results/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}/history.csv",
        manifest="results/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}/manifest.json",
        provenance="results/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}/provenance.json",
    log:
        "logs/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}.log",


def epoch_feature_settings(wildcards):
    """Settings of a job that computes the features of snapshots."""
    settings = EpochFeatureSettings(
        view=view_of(wildcards.model, wildcards.dataset),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        compute=COMPUTE,
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
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=MINUTES_OF_FEATURES,
    params:
        cfg=epoch_feature_settings,
    script:
        str(WORKFLOW / "scripts/compute_epoch_features.py")


def inversion_settings(script, wildcards):
    """Settings of a job of a script that inverts representations, or reads inversions."""
    settings = InversionJobSettings(
        **network_settings(wildcards),
        inversion=INVERSION,
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
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: attempt
        * memory_of(
            [wildcards.dataset], MEMORY.gradients_on_host(wildcards.model, EVALUATION_BATCH_SIZE)
        ),
        runtime=720,
    params:
        cfg=lambda wildcards: inversion_settings("invert_representation", wildcards),
    script:
        str(WORKFLOW / "scripts/invert_representation.py")


def inversion_before_tuning(wildcards):
    """The inversion of the pretrained model's representation of a job's dataset, by input."""
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
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=MINUTES_OF_FEATURES,
    params:
        cfg=lambda wildcards: inversion_settings("cross_inversions", wildcards),
    script:
        str(WORKFLOW / "scripts/cross_inversions.py")


def fisher_inputs(wildcards):
    """Inputs of a job that computes Fisher information, by name."""
    if wildcards.method == PRETRAINED:
        return {**network_files(run_of(wildcards)), **reference_inputs("dataset", wildcards.model)}
    return network_inputs(wildcards)


def fisher_dataset(wildcards):
    """The dataset on whose images Fisher information is computed."""
    if wildcards.method == PRETRAINED:
        return GRID.reference.dataset.name
    return wildcards.target


def fisher_settings(wildcards):
    """Settings of a job that computes Fisher information; its file is named after some of them.

    `fisher_images` is 1000 or 1000_empirical: the number of images and, if another than SAMPLED,
    the kind.
    """
    images, _, kind = wildcards.fisher_images.partition("_")
    settings = FisherSettings(
        **network_settings(wildcards),
        fisher_images=int(images),
        kind=kind if kind else SAMPLED,
        code=digest_with_merge("compute_fisher", wildcards.method),
    )
    return to_params(settings)


# Of the parents of a merge that asks for it, on the images that they were trained on; of the
# pretrained model, on the pretraining proxy, for methods whose trainings on all targets share it.
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
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([fisher_dataset(wildcards)])
    resources:
        gpu=GPU,
        # images are passed one by one
        mem_mb=lambda wildcards, attempt: attempt
        * memory_of(
            [fisher_dataset(wildcards)], MEMORY.gradients_on_host(wildcards.model, images=1)
        ),
        runtime=MINUTES_OF_FISHER,
    params:
        cfg=fisher_settings,
    script:
        str(WORKFLOW / "scripts/compute_fisher.py")
