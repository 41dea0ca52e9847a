"""Gather the training histories of all runs."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.training import write_training

    write_training(**arguments(write_training, snakemake, out))
