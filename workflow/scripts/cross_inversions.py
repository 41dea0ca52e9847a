"""Compute features of the inversions of two networks, each with the other network."""

from _run import arguments, run, run_on_dataset, warm_start

warm_start()

with run(snakemake) as out:
    from rib.evaluation.inversion import cross_features

    cross_features(**arguments(cross_features, snakemake, out, source=run_on_dataset(snakemake)))
