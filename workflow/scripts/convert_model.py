"""Convert and check one pretrained model, or store its text tower."""

from _run import arguments, dataset_files, run, warm_start

warm_start()

with run(snakemake) as out:
    from rib.models.convert import convert, store_text

    proxy = snakemake.input.reference
    reference = dataset_files("reference", proxy, None, None) if proxy else None
    function = store_text if "tower" in out else convert
    function(**arguments(function, snakemake, out, reference=reference))
