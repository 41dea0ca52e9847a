"""Associate distances between datasets with the effect of fine-tuning."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.association import write_tables

    write_tables(**arguments(write_tables, snakemake, out))
