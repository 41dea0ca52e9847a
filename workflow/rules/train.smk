# Train networks: pretrain them, fine-tune them, and import weights that were trained elsewhere.

from rib.base.params import replaced
from rib.grid.compared_runs import SNAPSHOTS
from rib.schema.method_facts import MethodFacts
from rib.grid.model_facts import model_arguments, model_facts
from rib.records import provenance
from rib.training.training_settings import FineTuningSettings, PretrainingSettings, TrainingSettings

# Pretrain models here, from random weights on part of a dataset, as their catalogue entries
# specify.
# `snakemake pretrain_again` does so for published models whose entries say how they were trained,
# in a separate folder: no result depends on it.
PRETRAINED_AGAIN = f"results/{FAMILY}/pretrained_again/{{model}}"
PUBLISHED_WITH_RECIPE = [
    name for name, model in GRID.models.items() if model.pretrain and not model.is_trained_here
]


def pretraining_inputs(wildcards):
    """Inputs of a job that pretrains a model, by name: its dataset, and another to test it on."""
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
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_training(
            wildcards, [pretraining_dataset(wildcards)], attempt
        ),
        runtime=lambda wildcards: time_limit(
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

# Time limits if the plan has no estimate; the long one is for very large datasets.
MINUTES_OF_TRAINING = 240
MINUTES_OF_LONG_TRAINING = 2880
COMPUTE_IN_TRAINING = replaced(
    COMPUTE, gradient_checkpointing=CONFIG["compute"]["gradient_checkpointing"]
)


def text_inputs(wildcards):
    """Text tower and tokens for methods that train with texts; empty for others."""
    if GRID.methods[wildcards.method].text == "no":
        return {}
    files = [PATHS.text(f"{name}.safetensors", wildcards.model) for name in ("tower", "tokens")]
    return {
        "text": PATHS.text("manifest.json", wildcards.model),
        "text_files": ancient(files),
    }


def shared_fisher_inputs(wildcards):
    """Fisher information from a separate job, for methods that share it; empty for others."""
    if GRID.shared_fisher(wildcards.method) is None:
        return {}
    (manifest,) = PATHS.shared_fisher("manifest.json", Run.from_wildcards(wildcards))
    (fisher,) = PATHS.shared_fisher("safetensors", Run.from_wildcards(wildcards))
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
        "checkpoint_manifests": PATHS.checkpoints(
            "manifest.json", Run.from_wildcards(wildcards), start
        ),
        "checkpoints": ancient(
            PATHS.checkpoints("checkpoint.safetensors", Run.from_wildcards(wildcards), start)
        ),
        **text_inputs(wildcards),
        **shared_fisher_inputs(wildcards),
    }


def monitored_datasets(wildcards):
    """Datasets whose accuracy is shown during a training; their files may be missing.

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
        facts=method.facts,
        parents=GRID.parents_of(wildcards.method),
        training=training_of(wildcards.method, wildcards.target, wildcards.size),
        view=view_of(wildcards.model, *GRID.datasets_of_training(wildcards)),
        compute=COMPUTE_IN_TRAINING,
        code=digest("finetune", algorithm),
    )
    return to_params(settings)


def minutes_of_training(wildcards):
    """Time limit of a job that trains a run; a repeated job continues the training."""
    estimated = RUN_TIMES.of_training(Run.from_wildcards(wildcards))
    if estimated is not None:
        return estimated
    is_long = wildcards.target in LARGE_DATASETS_READ
    return time_limit(MINUTES_OF_LONG_TRAINING if is_long else MINUTES_OF_TRAINING)


# The rule keep_snapshots inherits from this one.
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
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([wildcards.target])
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_training(wildcards, [wildcards.target], attempt),
        runtime=minutes_of_training,
    params:
        cfg=fine_tuning_settings,
        # The argument `input` keeps it out of records: a change of what is shown repeats no
        # training.
        monitor=lambda wildcards, input: monitored_datasets(wildcards),
    script:
        "../scripts/finetune.py"


# Runs are trained once more to keep their weights at ten times, so that settings of ordinary runs
# stay unchanged. The analysis `epochs` shows them.
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


# Checkpoints of fine-tuned weights that were trained elsewhere and are in the tables of config's
# `external`.

EXPORTED = [
    "model.safetensors",
    "open_clip_model.safetensors",
    "classification_head.safetensors",
]  # in folders


def weights_settings(wildcards):
    """Settings of the algorithm that imports a checkpoint: its files, and the model they must fit.

    Files are identified by size and time, since hashes would slow down every dry-run. Without the
    files, a pulled checkpoint's record gives the settings.
    """
    run = str(Run.from_wildcards(wildcards))
    entry = GRID.models[wildcards.model]
    row = CATALOG.external[run]
    path = row["path"]  # a file, or a folder as other libraries export it
    files = [path / name for name in EXPORTED if (path / name).is_file()]
    if not files and path.is_file():
        files = [path]
    if not files:
        record = provenance.read(
            Path(PATHS.checkpoint("provenance.json", Run.from_wildcards(wildcards)))
        )
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
    weights_settings(RUN)  # a missing file fails before any job runs


def import_settings(wildcards):
    """Settings of a job that imports a checkpoint: of a training that trains nothing."""
    algorithm = CATALOG.algorithm_file(GRID.methods[wildcards.method].algorithm)
    settings = FineTuningSettings(
        algorithm=local(algorithm),
        settings=weights_settings(wildcards),
        facts=MethodFacts(),
        parents=[],
        training=None,
        view=view_of(wildcards.model, *GRID.datasets_of_training(wildcards)),
        compute=COMPUTE,
        code=digest("finetune", algorithm),
    )
    return to_params(settings)


# The files are not inputs: hashing them would take too long, and exports of this project depend
# on the tables.
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
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([wildcards.target])
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.target], attempt
        ),
        runtime=time_limit(MINUTES_OF_TRAINING),
    params:
        cfg=import_settings,
    script:
        "../scripts/finetune.py"
