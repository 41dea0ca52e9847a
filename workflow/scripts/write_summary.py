"""Write summary tables for papers."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.summary import write_summary

    write_summary(**arguments(write_summary, snakemake, out))
