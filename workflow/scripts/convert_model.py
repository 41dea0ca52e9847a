"""Convert and check one pretrained model, or store its text tower."""

from _run import arguments, dataset_files, run

with run(snakemake, warm="networks") as out:
    from rib.models.convert import convert, store_text

    function = store_text if "tower" in out else convert
    function(**arguments(function, snakemake, out, reference=dataset_files(snakemake, "reference")))
