"""Fine-tune one model on one target with one method, keeping the weights after each epoch."""

from _run import arguments, run, training, warm_start

warm_start()

with run(snakemake, resumes="state.safetensors") as out:
    from rib.training.finetune import finetune

    snapshots = [path for name, path in out.items() if name.startswith("epoch")]
    last = snapshots[-1]
    kept = {"snapshots": snapshots, "checkpoint": last, "saved": last.with_name("state.safetensors")}
    finetune(**arguments(finetune, snakemake, out, **training(snakemake), **kept))
