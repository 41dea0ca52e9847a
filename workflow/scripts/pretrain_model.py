"""Train one model from random weights."""

from pathlib import Path

from _run import arguments, run, warm_start

warm_start()

with run(snakemake, resumes="state.safetensors") as out:
    from rib.training.pretrain import pretrain

    rescue = Path(snakemake.log[0]).with_suffix(".last_good.safetensors")
    kept = {"saved": out["weights"].with_name("state.safetensors"), "rescue": rescue}
    pretrain(**arguments(pretrain, snakemake, out, **kept))
