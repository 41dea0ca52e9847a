"""Gather the histories of all fine-tunings."""

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "training") as out:
    from rib.analysis.training import write_training

    write_training(
        histories=snakemake.input.histories, conditions=snakemake.params.cfg["conditions"], table=out["table"]
    )
