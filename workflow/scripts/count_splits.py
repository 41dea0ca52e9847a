"""Count the images of the train, select and test splits."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.splits import write_counts

    write_counts(**arguments(write_counts, snakemake, out))
