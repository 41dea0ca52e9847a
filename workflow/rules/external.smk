# Checkpoints of fine-tuned weights that were trained elsewhere, which the tables of config's
# `external` name.

from rib.records import provenance

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
        "arguments": GRID.arguments(entry.name),
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
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.target], attempt
        ),
        runtime=MINUTES_OF_TRAINING,
    params:
        cfg=import_settings,
    script:
        str(WORKFLOW / "scripts/finetune.py")
