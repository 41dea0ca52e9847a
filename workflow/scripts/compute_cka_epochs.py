"""Write the table of CKA over epochs."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.cka import write_cka_epochs

    write_cka_epochs(**arguments(write_cka_epochs, snakemake, out))
