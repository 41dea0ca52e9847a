# Compute the features of one run on one dataset, for analyses that compare representations or
# datasets, and Fisher information.

from rib.config.compared_runs import compared_runs
from rib.evaluation.settings import FeatureSettings, FisherSettings

COMPARED = compared_runs(GRID, WHOLE_GRID)
FEATURES = f"{RUNS}/features/{RUN_PATH}/{{dataset}}"


def features_of(runs):
    """Files of the features of runs on the out-of-distribution datasets."""
    return [
        f"{FEATURES}.safetensors".format(**vars(run), dataset=dataset)
        for run in runs
        for dataset in GRID.ood
    ]


# Features of the compared runs, and settings of their figures.
PRETRAINED_FEATURES = features_of(PRETRAINED_RUNS.values())
TUNED_FEATURES = features_of(COMPARED)
# Resources of jobs that compute CKA: memory for the kernels of all layers and one more, and their
# sums over objects.
KERNELS = {
    "mem_mb": 2000 + CONFIG["representations"]["images"] ** 2 * 8 * 20 // 2**20,
    "runtime": 120,
}
COMPARED_METHODS = {run.method for run in COMPARED}
COMPARED_TARGETS = {run.target for run in COMPARED}
COMPARED_SETTINGS = {
    "models": MODEL_LABELS,
    "methods": {name: METHOD_STYLES[name] for name in SHOWN if name in COMPARED_METHODS},
    "targets": {name: label for name, label in TARGET_LABELS.items() if name in COMPARED_TARGETS},
    "confidence": CONFIDENCE,
}
# Methods with one state; curves and ensembles have several.
ONE_STATE = of_form("finetune", "external", "weights", "select", "merge")
MINUTES_OF_FEATURES = 120
MINUTES_OF_FISHER = 240
# Labels of which Fisher information is computed, unless its file says otherwise.
SAMPLED = "sampled"


def network_inputs(wildcards):
    """Inputs of a job that passes images through a run's network, by name.

    They are images of its dataset, or of the target if it has none.
    """
    return {
        **network_files(wildcards),
        **dataset_inputs(
            "dataset", wildcards.get("dataset", wildcards.target), GEOMETRY_OF[wildcards.model]
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
        "parents": PARENTS[wildcards.method],
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


def fisher_inputs(wildcards):
    """Inputs of a job that computes Fisher information, by name."""
    if wildcards.method == PRETRAINED:
        return {**network_files(wildcards), **reference_inputs("dataset", wildcards.model)}
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
