# Compute the features of one run on one dataset, for analyses that compare representations or
# datasets, and Fisher information.

from rib.evaluation.settings import FeatureSettings, FisherSettings


def compared_runs():
    """Fine-tuned runs whose representations are compared with the pretrained model.

    A target or method of config, representations, that is unknown, a curve or an ensemble, which
    has several states, or a merge over targets is a UserError.
    """
    chosen = CONFIG["representations"]
    where = "config, representations"
    without_one_state = [*CURVES, *WHOLE_GRID.over_targets, *ENSEMBLES]
    methods_with_one_state = [name for name in WHOLE_GRID.methods if name not in without_one_state]
    targets = GRID.targets
    if chosen["targets"] not in ("default", "all"):
        targets = chosen["targets"]
        for name in targets:
            known_name(name, WHOLE_GRID.targets, "target of this run", where)
    elif chosen["targets"] == "default" and EXAMPLE_TARGET:
        targets = [EXAMPLE_TARGET]
    methods = methods_with_one_state
    if chosen["methods"] not in ("default", "all"):
        methods = chosen["methods"]
        for name in methods:
            known_name(name, methods_with_one_state, "method of this run with one state", where)
    return [run for run in GRID.runs() if run.target in targets and run.method in methods]


COMPARED = compared_runs()
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
ONE_STATE = of_form("finetune", "external", "recipe", "select", "merge")
MEGABYTES_OF_A_NETWORK = 4000
MINUTES_OF_FEATURES = 120
MINUTES_OF_FISHER = 240
# Labels of which Fisher information is computed, unless its file says otherwise.
SAMPLED = "sampled"


def network_inputs(w):
    """Inputs of a job that passes images through a run's network, by name.

    They are images of its dataset, or of the target if it has none.
    """
    return {
        **state_inputs(w),
        **dataset_inputs("dataset", w.get("dataset", w.target), GEOMETRY_OF[w.model]),
    }


def network_settings(w):
    """Fields of the settings of a job that passes images through a run's network, but `code`."""
    return {
        "parents": PARENTS[w.method],
        "algorithm": algorithm_on_loading(w.method),
        "view": VIEW_OF[w.model],
        "evaluation_batch_size": EVALUATION_BATCH_SIZE,
        "compute": COMPUTE,
    }


def feature_settings(w):
    """Settings of a job that computes features."""
    settings = FeatureSettings(
        **network_settings(w),
        layers=CONFIG["representations"]["layers"],
        limit=CONFIG["representations"]["images"],
        code=digest_with_loading("compute_features", w.method),
    )
    return to_params(settings)


rule compute_features:
    input:
        unpack(network_inputs),
    output:
        **job_files(FEATURES, features="safetensors", index="index.parquet"),
    log:
        f"{RUN_LOGS}/features/{RUN_PATH}/{{dataset}}.log",
    wildcard_constraints:
        method=f"{PRETRAINED}|{ONE_STATE}",
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda w: threads_for([w.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory_of([w.dataset], MEGABYTES_OF_A_NETWORK),
        runtime=MINUTES_OF_FEATURES,
    params:
        cfg=feature_settings,
    script:
        str(WORKFLOW / "scripts/compute_features.py")


def fisher_inputs(w):
    """Inputs of a job that computes Fisher information, by name."""
    if w.method == PRETRAINED:
        return {**state_inputs(w), **reference_inputs("dataset", w.model)}
    return network_inputs(w)


def fisher_dataset(w):
    """The dataset on whose images Fisher information is computed."""
    if w.method == PRETRAINED:
        return GRID.reference.dataset.name
    return w.target


def fisher_settings(w):
    """Settings of a job that computes Fisher information; its file is named after some of them."""
    images, _, kind = w.fisher_images.partition("_")
    settings = FisherSettings(
        **network_settings(w),
        fisher_images=int(images),
        kind=kind if kind else SAMPLED,
        code=digest_with_loading("compute_fisher", w.method),
    )
    return to_params(settings)


# Of the parents of a merge that asks for it, on the images that they were trained on; of the
# pretrained model, on the pretraining proxy, for methods whose trainings on all targets share it.
rule compute_fisher:
    input:
        unpack(fisher_inputs),
    output:
        **job_files(FISHER, fisher="safetensors"),
    log:
        f"{RUN_LOGS}/fisher/{RUN_PATH}/{{fisher_images}}.log",
    wildcard_constraints:
        method="|".join([PRETRAINED, of_form("finetune", "external")]),
        fisher_images="[0-9]+(_empirical)?",
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda w: threads_for([fisher_dataset(w)])
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory_of([fisher_dataset(w)], MEGABYTES_OF_A_NETWORK),
        runtime=MINUTES_OF_FISHER,
    params:
        cfg=fisher_settings,
    script:
        str(WORKFLOW / "scripts/compute_fisher.py")
