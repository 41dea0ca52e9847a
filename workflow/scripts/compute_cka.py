"""Write the table of CKA."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.cka import write_cka

    write_cka(**arguments(write_cka, snakemake, out))
