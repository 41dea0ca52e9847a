"""Compute the cost of one mRI of each method."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.cost import write_costs

    write_costs(**arguments(write_costs, snakemake, out))
