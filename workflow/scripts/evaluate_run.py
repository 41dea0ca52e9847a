"""Evaluate one run on one evaluation group, or on those of its datasets that `only` names."""

from pathlib import Path

from _run import arguments, dataset_group, run, run_weights

with run(snakemake, warm="networks") as out:
    from rib.data.groups import read_group
    from rib.evaluation.evaluate import evaluate

    folders = read_group(Path(snakemake.input.evaluation_group))
    only = snakemake.params.cfg.get("only", folders)
    datasets = dataset_group(snakemake, {name: folders[name] for name in only})
    evaluate(**arguments(evaluate, snakemake, out, datasets=datasets, **run_weights(snakemake)))
