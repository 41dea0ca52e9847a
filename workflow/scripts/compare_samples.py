"""Compare predictions of pretrained and fine-tuned models image by image."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.samples import write_tables

    write_tables(**arguments(write_tables, snakemake, out))
