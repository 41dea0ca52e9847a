"""Write the table of STIR."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.stir import write_stir

    write_stir(**arguments(write_stir, snakemake, out))
