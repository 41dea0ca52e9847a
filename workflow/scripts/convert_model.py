"""Convert and check one pretrained model."""

from _run import arguments, dataset_files, run, warm_start

warm_start()

with run(snakemake) as out:
    from rib.models.convert import convert

    proxy = snakemake.input.reference
    reference = dataset_files("reference", proxy, None, None) if proxy else None
    convert(**arguments(convert, snakemake, out, reference=reference))
