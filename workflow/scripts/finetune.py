"""Fine-tune one model on one target with one method."""

from _run import run, training, warm_start

warm_start()

with run(snakemake, "finetune", resumes="state.safetensors") as out:
    from rib.finetune import finetune

    finetune(
        **training(snakemake),
        saved=out["checkpoint"].with_name("state.safetensors"),
        **{key: out[key] for key in ("checkpoint", "history", "manifest")},
    )
