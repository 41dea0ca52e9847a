"""Compare pretrained accuracies with published ones."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.published import compare

    compare(**arguments(compare, snakemake, out))
