"""Write the tables of a grid."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.tables import write_tables

    write_tables(**arguments(write_tables, snakemake, out))
