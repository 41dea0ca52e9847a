"""Fine-tune one model on one target with one method; keep snapshots of the weights if the rule has outputs for them."""

from pathlib import Path

from _run import arguments, dataset_files, run, warm_start

warm_start()

with run(snakemake, resumes="state.safetensors") as out:
    from rib.training.finetune import finetune

    files, snapshots = snakemake.input, [path for name, path in out.items() if name.startswith("snapshot")]
    checkpoint = snapshots[-1] if snapshots else out["checkpoint"]
    reference = dataset_files("reference", files.reference, None, files.reference_split) if files.reference else None
    given = {
        "target": dataset_files(snakemake.wildcards.target, files.target, files.proxy, files.split),
        "reference": reference,
        "start": dict(zip(snakemake.params.cfg["parents"], map(Path, files.start_weights), strict=True)),
        "snapshots": snapshots,
        "checkpoint": checkpoint,
        "saved": checkpoint.with_name("state.safetensors"),
        "rescue": Path(snakemake.log[0]).with_suffix(".last_good.safetensors"),
    }
    finetune(**arguments(finetune, snakemake, out, **given))
