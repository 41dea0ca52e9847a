# Fine-tune one pretrained model on one target with one method. Only changed tensors are stored.

from rib.base.settings import replaced
from rib.training.settings import FineTuningSettings, TrainingSettings

# Limits of time of jobs that train a network; the long one is for very large datasets.
MINUTES_OF_TRAINING = 240
MINUTES_OF_LONG_TRAINING = 2880
CHECKPOINT = f"{RUNS}/finetune/{RUN_PATH}"
# Fisher information of a run on its target, or of the pretrained model on the pretraining proxy.
# Its name is the largest number of images, and `_empirical` if labels are the images' own.
FISHER = f"{RUNS}/fisher/{RUN_PATH}/{{fisher_images}}"
COMPUTE_IN_TRAINING = replaced(
    COMPUTE, gradient_checkpointing=CONFIG["compute"]["gradient_checkpointing"]
)
CHECKPOINT_RUNS = [
    run
    for run in GRID.runs()
    if run.method != PRETRAINED and GRID.methods[run.method].form not in MERGES
]
TRAINED_RUNS = [run for run in CHECKPOINT_RUNS if GRID.methods[run.method].trains]
# Keys of the checkpoints that make up a run's weights, by method: none, the method itself, or the
# parents of a merge.
PARENTS = {PRETRAINED: []}
for NAME, METHOD in GRID.methods.items():
    PARENTS[NAME] = GRID.parents_of(NAME) if METHOD.form in MERGES else [NAME]


def columns_of(run):
    """Model, method, target, size and seed of a run, or of the wildcards of one, by name."""
    return {column: getattr(run, column) for column in RUN_COLUMNS}


def checkpoint_files(file, run, parents):
    """A file of each parent's checkpoint.

    It is that of the model, target, size and seed of a run unless the parent's key says otherwise:
    of the parent `ft, seed 1` it is that of seed 1. `run` is a run or the wildcards of one.
    """
    files = []
    for key in parents:
        parent = {**columns_of(run), **parent_of(key)}
        files.append(f"{CHECKPOINT}/{file}".format(**parent))
    return files


def reference_inputs(role, model):
    """Inputs of a job that reads the pretraining proxy, by name, with a role in these names.

    The proxy is images that stand in for the pretraining data.

    With the role `reference` they are `reference`, the manifest of the dataset with the proxy, and
    `reference_split`, its split where the proxy is the whole dataset, else an empty list.
    """
    name = GRID.reference.dataset.name
    geometry = GEOMETRY_OF[model]
    is_whole_dataset = GRID.reference.images_per_class is None
    return {
        role: prepared("manifest.json", name, geometry),
        f"{role}_split": split_of(geometry, name) if is_whole_dataset else [],
    }


def shared_fisher_files(ending, run):
    """A file of the Fisher information that a method's trainings of a model and seed share.

    `run` is a run or the wildcards of one. The file is in a list, which is empty if the trainings
    share none. Its name says how it was computed:
    1000.safetensors, or 1000_empirical.safetensors if it is of another kind than `sampled`.
    """
    shared = GRID.shared_fisher(run.method)
    if shared is None:
        return []
    images, kind = shared
    name = images if kind == "sampled" else f"{images}_{kind}"
    pretrained_run = {**vars(PRETRAINED_RUNS[run.model]), "seed": run.seed}
    return [f"{FISHER}.{ending}".format(**pretrained_run, fisher_images=name)]


def shared_fisher_inputs(wildcards):
    """Inputs of a job that trains with Fisher information from a job of its own, by name.

    Other runs have none.
    """
    if GRID.shared_fisher(wildcards.method) is None:
        return {}
    (manifest,) = shared_fisher_files("manifest.json", wildcards)
    (fisher,) = shared_fisher_files("safetensors", wildcards)
    return {"fisher_manifest": manifest, "shared_fisher": ancient(fisher)}


def training_inputs(wildcards):
    """Inputs of a job that trains a run, by name."""
    method = GRID.methods[wildcards.method]
    start = method.parents
    proxy = {"reference": [], "reference_split": []}
    if GRID.reference is not None and method.reference != "no":
        proxy = reference_inputs("reference", wildcards.model)
    return {
        "model": f"{MODEL}/manifest.json".format(model=wildcards.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=wildcards.model)),
        **dataset_inputs("target", wildcards.target, GEOMETRY_OF[wildcards.model]),
        **proxy,
        "checkpoint_manifests": checkpoint_files("manifest.json", wildcards, start),
        "checkpoints": ancient(checkpoint_files("checkpoint.safetensors", wildcards, start)),
        **text_inputs(wildcards),
        **shared_fisher_inputs(wildcards),
    }


def monitored_datasets(wildcards):
    """Datasets whose accuracy is shown in the course of a training, with files that may be missing.

    `view` says how they are read, with the limits of their evaluations.
    """
    geometry = GEOMETRY_OF[wildcards.model]
    names = CONFIG["monitor"]
    datasets = [
        {
            "name": name,
            "manifest": prepared("manifest.json", name, geometry),
            "proxy": proxy_of(geometry, [name]),
            "split": split_of(geometry, name),
        }
        for name in names
    ]
    return {"datasets": datasets, "view": to_params(view_of(wildcards.model, *names))}


for NAME in CONFIG["monitor"]:
    known_name(NAME, GRID.datasets, "dataset of this run", "config, monitor")


@cache
def training_of(method, target, size):
    """How a run of a method that trains is trained."""
    return from_params(TrainingSettings, GRID.training_of(method, target, size))


def fine_tuning_settings(wildcards):
    """Settings of a job that trains a run."""
    method = GRID.methods[wildcards.method]
    algorithm = CATALOG.algorithm_file(method.algorithm)
    settings = FineTuningSettings(
        algorithm=local(algorithm),
        settings=GRID.settings(wildcards.method, wildcards.model),
        parents=GRID.parents_of(wildcards.method),
        training=training_of(wildcards.method, wildcards.target, wildcards.size),
        view=view_of(wildcards.model, *GRID.datasets_of_training(wildcards)),
        compute=COMPUTE_IN_TRAINING,
        code=digest("finetune", algorithm),
    )
    return to_params(settings)


# The rule that keeps snapshots of the weights inherits from this one.
rule finetune:
    input:
        unpack(training_inputs),
        # A training waits for the check of its labels, and is not repeated for another verdict.
        label_verdict=lambda wildcards: ancient(verdicts_on_labels(wildcards)),
    output:
        checkpoint="results/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}/checkpoint.safetensors",
        history="results/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}/history.csv",
        manifest="results/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}/manifest.json",
        provenance="results/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}/provenance.json",
    log:
        "logs/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.target])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_training(wildcards, [wildcards.target], attempt),
        runtime=lambda wildcards: (
            MINUTES_OF_LONG_TRAINING if wildcards.target in LARGE_DATASETS else MINUTES_OF_TRAINING
        ),
    params:
        cfg=fine_tuning_settings,
        # It takes `input`, so that a training is not repeated for what is only shown.
        monitor=lambda wildcards, input: monitored_datasets(wildcards),
    script:
        str(WORKFLOW / "scripts/finetune.py")
