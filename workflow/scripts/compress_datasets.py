"""Compute distances between datasets by compression."""

from _run import run

with run(snakemake) as output:
    from _datasets import dataset_group
    from rib.base.settings import from_params
    from rib.data.settings import DatasetView
    from rib.statistics.compression import compression_of
    from rib.statistics.writing import write_tables

    cfg = snakemake.params.cfg
    datasets = dataset_group(
        snakemake.input, cfg["excludes_proxy"], cfg["split"], snakemake.threads
    )
    table = compression_of(datasets, from_params(DatasetView, cfg["view"]), cfg["megabytes"])
    write_tables({"compression": table}, output)
