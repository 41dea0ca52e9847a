"""Compute distances between datasets by compression."""

from _run import run

with run(snakemake) as output:
    from _datasets import dataset_group
    from rib.analyses.distances.compression import compression_of
    from rib.analyses.distances.settings import CompressionSettings
    from rib.base.settings import from_params
    from rib.statistics.writing import write_tables

    settings = from_params(CompressionSettings, snakemake.params.cfg)
    datasets = dataset_group(
        snakemake.input, settings.excludes_proxy, settings.split, snakemake.threads
    )
    table = compression_of(datasets, settings.view, settings.megabytes)
    write_tables({"compression": table}, output)
