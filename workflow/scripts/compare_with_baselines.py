"""Compare out-of-distribution accuracies with the line of baseline models."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.effective_robustness import write_tables

    write_tables(**arguments(write_tables, snakemake, out))
