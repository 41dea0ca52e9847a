"""Fine-tune one model on one target with one method; keep snapshots of the weights if the rule has outputs for them."""

from _run import arguments, checkpoints, dataset_files, run

with run(snakemake, resumes="state.pt", warm="networks") as out:
    from rib.monitoring.watch import Watch
    from rib.training.finetune import finetune

    snapshots = [path for name, path in out.items() if name.startswith("snapshot")]
    given = {
        "target": dataset_files(snakemake, "target"),
        "reference": dataset_files(snakemake, "reference"),
        "start": checkpoints(snakemake),
        "snapshots": snapshots,
        "checkpoint": snapshots[-1] if snapshots else out["checkpoint"],
        "saved": out["manifest"].with_name("state.pt"),
        "watch": Watch(**arguments(Watch, snakemake, out, log_file=snakemake.log[0])),
    }
    finetune(**arguments(finetune, snakemake, out, **given))
