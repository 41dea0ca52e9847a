"""Select one merge on held-out images and write its recipe."""

from _run import arguments, checkpoints, dataset_files, run

with run(snakemake, warm="networks") as out:
    from rib.evaluation.select_weights import select_weights

    given = {"target": dataset_files(snakemake, "target"), "checkpoints": checkpoints(snakemake)}
    select_weights(**arguments(select_weights, snakemake, out, **given))
