"""Compute one run's features on one dataset."""

from _run import arguments, run, run_on_dataset, warm_start

warm_start()

with run(snakemake) as out:
    from rib.evaluation.features import compute_features

    compute_features(**arguments(compute_features, snakemake, out, source=run_on_dataset(snakemake)))
