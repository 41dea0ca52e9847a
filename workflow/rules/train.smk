# Train networks: pretrain them, fine-tune them, and import weights that were trained elsewhere.

from rib.base.settings import replaced
from rib.config.compared_runs import SNAPSHOTS
from rib.config.model_facts import model_arguments, model_facts
from rib.records import provenance
from rib.training.settings import FineTuningSettings, PretrainingSettings, TrainingSettings

# Pretrain models here, from random weights on part of a dataset, as their catalogue entries
# specify. Published models whose entries say how they were made are pretrained again on demand
# (snakemake pretrain_again), into a folder of their own: no result depends on it.
PRETRAINED_AGAIN = f"results/{FAMILY}/pretrained_again/{{model}}"
PUBLISHED_WITH_RECIPE = [
    name for name, model in GRID.models.items() if model.pretrain and not model.is_trained_here
]


def pretraining_inputs(wildcards):
    """Inputs of a job that pretrains a model: its dataset, and another to test it on, by name."""
    pretraining = CATALOG.models[wildcards.model].pretrain
    dataset = pretraining.dataset
    test_dataset = pretraining.test
    geometry = PATHS.geometry_of(wildcards.model)
    return {
        "dataset": PATHS.prepared("manifest.json", dataset, geometry),
        "test": PATHS.prepared("manifest.json", test_dataset, geometry),
        "dataset_files": ancient(PATHS.prepared_files(geometry, [dataset, test_dataset])),
    }


def pretraining_settings(wildcards):
    """Settings of a job that pretrains a model."""
    facts = model_facts(GRID, wildcards.model)
    pretraining = CATALOG.pretraining(CATALOG.models[wildcards.model])
    settings = PretrainingSettings(
        entry={**facts, "source": None, "tokenizer": [], "pretrain": pretraining},
        num_classes=CATALOG.family_label_space(FAMILY).num_classes,
        training=from_params(TrainingSettings, GRID.pretraining(wildcards.model)),
        view=view_of(wildcards.model, pretraining["dataset"], pretraining["test"]),
        compute=COMPUTE,
        code=digest("pretrain_model"),
    )
    return to_params(settings)


def pretraining_dataset(wildcards):
    """The dataset on which a model is pretrained."""
    return CATALOG.models[wildcards.model].pretrain.dataset


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
        model=any_of(name for name, model in CATALOG.models.items() if model.is_trained_here),
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([pretraining_dataset(wildcards)])
    resources:
        gpu=GPU,
        cpus_per_task=processors_of_gpu_job,
        attempt=number_of_attempt,
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
        model=any_of(PUBLISHED_WITH_RECIPE),


rule pretrain_again:
    input:
        expand(f"{PRETRAINED_AGAIN}/weights.safetensors", model=PUBLISHED_WITH_RECIPE),


# Fine-tune one pretrained model on one target with one method. Only changed tensors are stored.

# Limits of time of jobs that train a network, where no estimate of the plan is known; the long one
# is for very large datasets.
MINUTES_OF_TRAINING = 240
MINUTES_OF_LONG_TRAINING = 2880
COMPUTE_IN_TRAINING = replaced(
    COMPUTE, gradient_checkpointing=CONFIG["compute"]["gradient_checkpointing"]
)


def text_inputs(wildcards):
    """Inputs of a job that trains a run with texts, by name; none for other runs."""
    if GRID.methods[wildcards.method].text == "no":
        return {}
    files = [PATHS.text(f"{name}.safetensors", wildcards.model) for name in ("tower", "tokens")]
    return {
        "text": PATHS.text("manifest.json", wildcards.model),
        "text_files": ancient(files),
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
        settings=GRID.settings_on(wildcards.method, wildcards.model),
        parents=GRID.parents_of(wildcards.method),
        training=training_of(wildcards.method, wildcards.target, wildcards.size),
        view=view_of(wildcards.model, *GRID.datasets_of_training(wildcards)),
        compute=COMPUTE_IN_TRAINING,
        code=digest("finetune", algorithm),
    )
    return to_params(settings)


def minutes_of_training(wildcards):
    """Limit of time of a job that trains a run; if it is ended, it goes on when it is repeated."""
    estimated = RUN_TIMES.of_training(run_of(wildcards))
    if estimated is not None:
        return estimated
    is_long = wildcards.target in LARGE_DATASETS
    return MINUTES_OF_LONG_TRAINING if is_long else MINUTES_OF_TRAINING


# The rule that keeps snapshots of the weights inherits from this one.
rule finetune:
    input:
        unpack(training_inputs),
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
        cpus_per_task=processors_of_gpu_job,
        attempt=number_of_attempt,
        mem_mb=lambda wildcards, attempt: memory_of_training(wildcards, [wildcards.target], attempt),
        runtime=minutes_of_training,
    params:
        cfg=fine_tuning_settings,
        # It takes `input`, so that a training is not repeated for what is only shown.
        monitor=lambda wildcards, input: monitored_datasets(wildcards),
    script:
        str(WORKFLOW / "scripts/finetune.py")


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


# Checkpoints of fine-tuned weights that were trained elsewhere, which the tables of config's
# `external` name.

EXPORTED = [
    "model.safetensors",
    "open_clip_model.safetensors",
    "classification_head.safetensors",
]  # in folders


def weights_settings(wildcards):
    """Settings of the algorithm that imports a checkpoint: its files, and the model that they fit.

    The files have their sizes and times in place of hashes, which would slow down every dry-run.
    Without the files, settings are those of the checkpoint's record, if it was pulled.
    """
    run = str(run_of(wildcards))
    entry = GRID.models[wildcards.model]
    row = CATALOG.external[run]
    path = row["path"]  # of a file, or of a folder as other libraries export it
    files = [path / name for name in EXPORTED if (path / name).is_file()]
    if not files and path.is_file():
        files = [path]
    if not files:
        record = provenance.read(Path(PATHS.checkpoint("provenance.json", run_of(wildcards))))
        if record:
            return record["cfg"]["settings"]
        weights_of_a_folder = " or ".join(EXPORTED[:2])
        raise UserError(
            f"{row['where']}: {path} is no file, and no folder with {weights_of_a_folder}."
        )
    size_and_time = {}
    for file in files:
        stat = file.stat()
        path_in_settings = str(Path(local(file.parent), file.name))
        size_and_time[path_in_settings] = [stat.st_size, stat.st_mtime_ns]
    model = {
        "library": entry.library,
        "architecture": entry.architecture,
        "arguments": model_arguments(GRID, entry.name),
    }
    return {"run": run, "files": size_and_time, "model": model}


for RUN in (run for run in PATHS.checkpoint_runs if str(run) in CATALOG.external):
    weights_settings(RUN)  # refuse a missing file before any job runs


def import_settings(wildcards):
    """Settings of a job that imports a checkpoint: those of a training that trains nothing."""
    algorithm = CATALOG.algorithm_file(GRID.methods[wildcards.method].algorithm)
    settings = FineTuningSettings(
        algorithm=local(algorithm),
        settings=weights_settings(wildcards),
        parents=[],
        training=None,
        view=view_of(wildcards.model, *GRID.datasets_of_training(wildcards)),
        compute=COMPUTE,
        code=digest("finetune", algorithm),
    )
    return to_params(settings)


# The files are no inputs: hashing them would take too long, and exports of this project depend on
# the tables.
rule import_checkpoint:
    input:
        unpack(training_inputs),
    output:
        checkpoint="results/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}/checkpoint.safetensors",
        manifest="results/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}/manifest.json",
        provenance="results/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}/provenance.json",
    log:
        "logs/{family}/{protocol}/finetune/{model}/{target}/{method}/{size}/{seed}.log",
    wildcard_constraints:
        method=of_form("external"),
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.target])
    resources:
        gpu=GPU,
        cpus_per_task=processors_of_gpu_job,
        attempt=number_of_attempt,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.target], attempt
        ),
        runtime=MINUTES_OF_TRAINING,
    params:
        cfg=import_settings,
    script:
        str(WORKFLOW / "scripts/finetune.py")
