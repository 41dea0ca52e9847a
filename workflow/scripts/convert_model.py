"""Convert and check one pretrained model."""

from _run import arguments, dataset_files, run

with run(snakemake, warm="networks") as out:
    from rib.models.convert import convert

    convert(**arguments(convert, snakemake, out, reference=dataset_files(snakemake, "reference")))
