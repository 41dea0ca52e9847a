"""Train one model from random weights."""

from _run import arguments, run

with run(snakemake, resumes="state.pt", warm="networks") as out:
    from rib.training.pretrain import pretrain

    pretrain(**arguments(pretrain, snakemake, out, saved=out["weights"].with_name("state.pt")))
