"""Train one model from random weights."""

from _run import arguments, run

with run(snakemake, resumes="state.safetensors", warm="networks") as out:
    from rib.monitoring.watch import Watch
    from rib.training.pretrain import pretrain

    watch = Watch(**arguments(Watch, snakemake, out, log_file=snakemake.log[0]))
    saved = out["weights"].with_name("state.safetensors")
    pretrain(**arguments(pretrain, snakemake, out, saved=saved, watch=watch))
