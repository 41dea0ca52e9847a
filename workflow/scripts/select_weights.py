"""Select one merge on held-out images and write its recipe."""

from _run import arguments, checkpoints, dataset_files, run, warm_start

warm_start()

with run(snakemake) as out:
    from rib.evaluation.select_weights import select_weights

    files = snakemake.input
    target = dataset_files(snakemake.wildcards.target, files.target, files.proxy, files.split)
    select_weights(**arguments(select_weights, snakemake, out, target=target, checkpoints=checkpoints(snakemake)))
