"""Fine-tune one model on one target with one method; keep the weights of each epoch if the rule has outputs for them."""

from _run import arguments, run, training, warm_start

warm_start()

with run(snakemake, resumes="state.safetensors") as out:
    from rib.training.finetune import finetune

    snapshots = [path for name, path in out.items() if name.startswith("epoch")]
    checkpoint = snapshots[-1] if snapshots else out["checkpoint"]
    kept = {"snapshots": snapshots, "checkpoint": checkpoint, "saved": checkpoint.with_name("state.safetensors")}
    finetune(**arguments(finetune, snakemake, out, **training(snakemake), **kept))
