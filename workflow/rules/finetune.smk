# Fine-tune one pretrained model on one target with one method. Only changed tensors are stored.

from rib.base.settings import replaced
from rib.training.settings import FineTuningSettings, TrainingSettings

# Limits of time of jobs that train a network; the long one is for very large datasets.
MINUTES_OF_TRAINING = 240
MINUTES_OF_LONG_TRAINING = 2880
COMPUTE_IN_TRAINING = replaced(
    COMPUTE, gradient_checkpointing=CONFIG["compute"]["gradient_checkpointing"]
)


def reference_inputs(role, model):
    """Inputs of a job that reads the pretraining proxy, by name, with a role in these names.

    The proxy is images that stand in for the pretraining data.

    With the role `reference` they are `reference`, the manifest of the dataset with the proxy, and
    `reference_split`, its split where the proxy is the whole dataset, else an empty list.
    """
    name = GRID.reference.dataset.name
    geometry = PATHS.geometry_of(model)
    is_whole_dataset = GRID.reference.images_per_class is None
    return {
        role: PATHS.prepared("manifest.json", name, geometry),
        f"{role}_split": PATHS.split(geometry, name) if is_whole_dataset else [],
    }


def shared_fisher_inputs(wildcards):
    """Inputs of a job that trains with Fisher information from a job of its own, by name.

    Other runs have none.
    """
    if GRID.shared_fisher(wildcards.method) is None:
        return {}
    (manifest,) = PATHS.shared_fisher("manifest.json", run_of(wildcards))
    (fisher,) = PATHS.shared_fisher("safetensors", run_of(wildcards))
    return {"fisher_manifest": manifest, "shared_fisher": ancient(fisher)}


def training_inputs(wildcards):
    """Inputs of a job that trains a run, by name."""
    method = GRID.methods[wildcards.method]
    start = method.parents
    proxy = {"reference": [], "reference_split": []}
    if GRID.reference is not None and method.reference != "no":
        proxy = reference_inputs("reference", wildcards.model)
    return {
        "model": PATHS.model("manifest.json", wildcards.model),
        "weights": ancient(PATHS.model("weights.safetensors", wildcards.model)),
        **dataset_inputs("target", wildcards.target, PATHS.geometry_of(wildcards.model)),
        **proxy,
        "checkpoint_manifests": PATHS.checkpoints("manifest.json", run_of(wildcards), start),
        "checkpoints": ancient(
            PATHS.checkpoints("checkpoint.safetensors", run_of(wildcards), start)
        ),
        **text_inputs(wildcards),
        **shared_fisher_inputs(wildcards),
    }


def monitored_datasets(wildcards):
    """Datasets whose accuracy is shown in the course of a training, with files that may be missing.

    `view` says how they are read, with the limits of their evaluations.
    """
    geometry = PATHS.geometry_of(wildcards.model)
    names = CONFIG["monitor"]
    datasets = [
        {
            "name": name,
            "manifest": PATHS.prepared("manifest.json", name, geometry),
            "proxy": PATHS.proxy(geometry, [name]),
            "split": PATHS.split(geometry, name),
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
        label_verdict=lambda wildcards: ancient(PATHS.verdicts(run_of(wildcards))),
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
