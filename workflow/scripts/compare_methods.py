"""Compare the methods of each model."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.comparison import write_comparison

    write_comparison(**arguments(write_comparison, snakemake, out))
