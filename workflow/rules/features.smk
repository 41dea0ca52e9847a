# Compute the features of one run on one dataset, for analyses that compare representations or datasets.


def compared_runs():
    """Fine-tuned runs whose representations are compared with the pretrained model (config, representations).

    A target or method that is unknown, a curve or an ensemble, which has several states, or a merge over targets is a UserError.
    """
    chosen, where = CONFIG["representations"], "config, representations"
    single = [name for name in SHOWN if name not in ENSEMBLES]
    targets, methods = (
        [] if chosen[key] in ("default", "all") else chosen[key] for key in ("targets", "methods")
    )
    for name in targets:
        known_name(name, GRID.targets, "target of this run", where)
    for name in methods:
        known_name(name, single, "method of this run with one state", where)
    if chosen["targets"] == "default" and EXAMPLE_TARGET:
        targets = [EXAMPLE_TARGET]
    return [
        run
        for run in GRID.runs()
        if run.target in (targets or GRID.targets) and run.method in (methods or single)
    ]


COMPARED = compared_runs()
FEATURES = f"{RUNS}/features/{RUN_PATH}/{{dataset}}"
# Features of the compared runs, and settings of their figures.
PRETRAINED_FEATURES, TUNED_FEATURES = (
    [
        f"{FEATURES}.safetensors".format(**vars(run), dataset=dataset)
        for run in runs
        for dataset in GRID.ood
    ]
    for runs in (PRETRAINED_RUNS.values(), COMPARED)
)
# Resources of jobs that compute CKA: memory for the kernels of all layers and one more, and their sums over objects.
KERNELS = {
    "mem_mb": 2000 + CONFIG["representations"]["images"] ** 2 * 8 * 20 // 2**20,
    "runtime": 120,
}
COMPARED_SETTINGS = {
    "models": MODEL_LABELS,
    "methods": {
        name: METHOD_STYLES[name] for name in SHOWN if name in {run.method for run in COMPARED}
    },
    "targets": {
        name: label
        for name, label in TARGET_LABELS.items()
        if name in {run.target for run in COMPARED}
    },
    "confidence": CONFIDENCE,
}
ONE_STATE = of_form(
    "finetune", "external", "recipe", "select", "merge"
)  # curves and ensembles have several


def network_settings(function, w, **more):
    """Settings of a job that passes images through a network with a function of rib.evaluation, `module:function`."""
    source = WORKFLOW / "lib/rib/evaluation" / f"{function.split(':')[0]}.py"
    return {
        "function": f"rib.evaluation.{function}",
        "view": VIEW_OF[w.model],
        "batch_size": BATCH_SIZE,
        "compute": COMPUTE,
        **more,
        **loading_settings("run_network", w, source),
    }


def network_inputs(w):
    """Inputs of a job that passes images of its dataset, else of the target, through a run's network, by name."""
    return {
        **state_inputs(w),
        **dataset_inputs("dataset", w.get("dataset", w.target), GEOMETRY_OF[w.model]),
    }


# Other rules that pass a dataset's images through a network inherit from this one.
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
    threads: lambda w: threads_for([w.get("dataset", w.target)])
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory_of([w.dataset], 4000),
        runtime=120,
    params:
        cfg=lambda w: network_settings(
            "features:compute_features",
            w,
            parents=PARENTS[w.method],
            layers=CONFIG["representations"]["layers"],
            limit=CONFIG["representations"]["images"],
        ),
    script:
        str(WORKFLOW / "scripts/run_network.py")


def fisher_inputs(w):
    """Inputs of a job that computes Fisher information, by name."""
    if w.method == PRETRAINED:
        return {**state_inputs(w), **reference_inputs("dataset", w.model)}
    return network_inputs(w)


def fisher_dataset(w):
    """The dataset on whose images Fisher information is computed."""
    return GRID.reference.dataset.name if w.method == PRETRAINED else w.target


# Of the parents of a merge that asks for it, on the images that they were trained on; of the pretrained model, on the
# pretraining proxy, for methods whose trainings on all targets share it.
use rule compute_features as compute_fisher with:
    input:
        unpack(fisher_inputs),
    output:
        **job_files(FISHER, fisher="safetensors"),
    log:
        f"{RUN_LOGS}/fisher/{RUN_PATH}/{{fisher_images}}.log",
    wildcard_constraints:
        method="|".join([PRETRAINED, of_form("finetune", "external")]),
        fisher_images="[0-9]+(_empirical)?",
    threads: lambda w: threads_for([fisher_dataset(w)])
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory_of([fisher_dataset(w)], 4000),
        runtime=240,
    params:
        cfg=lambda w: network_settings(
            "fisher:compute_fisher",
            w,
            parents=PARENTS[w.method],
            fisher_images=int(w.fisher_images.partition("_")[0]),
            kind=w.fisher_images.partition("_")[2] or "sampled",
        ),
