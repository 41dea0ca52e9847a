"""Evaluate one run on one evaluation group."""

from pathlib import Path

from _run import arguments, dataset_group, run, run_weights, warm_start

warm_start()

with run(snakemake) as out:
    from rib.data.groups import read_group
    from rib.evaluation.evaluate import evaluate

    datasets = dataset_group(snakemake, read_group(Path(snakemake.input.evaluation_group)))
    evaluate(**arguments(evaluate, snakemake, out, datasets=datasets, **run_weights(snakemake)))
