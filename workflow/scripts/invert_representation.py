"""Invert the representation of one dataset's images by one run."""

from _run import arguments, run, run_on_dataset, warm_start

warm_start()

with run(snakemake) as out:
    from rib.evaluation.inversion import invert_run

    invert_run(**arguments(invert_run, snakemake, out, source=run_on_dataset(snakemake)))
