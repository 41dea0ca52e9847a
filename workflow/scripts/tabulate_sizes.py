"""Write RI and mRI by the number of training images."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.sizes import write_sizes

    write_sizes(**arguments(write_sizes, snakemake, out))
