"""Fine-tune one model on one target with one method."""

from _run import arguments, run, training, warm_start

warm_start()

with run(snakemake, resumes="state.safetensors") as out:
    from rib.training.finetune import finetune

    saved = out["checkpoint"].with_name("state.safetensors")
    finetune(**arguments(finetune, snakemake, out, **training(snakemake), saved=saved))
