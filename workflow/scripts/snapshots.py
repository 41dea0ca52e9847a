"""Fine-tune one model on one target with one method, keeping the weights after each epoch."""

from _run import run, training, warm_start

warm_start()

with run(snakemake, "snapshots", resumes="state.safetensors") as out:
    from rib.finetune import finetune

    snapshots = [path for name, path in out.items() if name.startswith("epoch")]
    finetune(
        **training(snakemake),
        snapshots=snapshots,
        checkpoint=snapshots[-1],
        saved=snapshots[-1].with_name("state.safetensors"),
        **{key: out[key] for key in ("history", "manifest")},
    )
