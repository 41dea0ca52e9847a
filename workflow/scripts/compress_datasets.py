"""Compute distances between datasets by compression."""

from _run import run

with run(snakemake) as output:
    from _inputs import optional_folder, paths
    from rib.analyses.distances.compression import compression_of
    from rib.base.params import from_params
    from rib.data.data_settings import DatasetView
    from rib.data.view import evaluated_datasets
    from rib.statistics.writing import write_tables

    cfg = snakemake.params.cfg
    datasets = evaluated_datasets(
        indexes=paths(snakemake.input.indexes),
        proxy=optional_folder(snakemake.input.proxy),
        splits=paths(snakemake.input.splits),
        excludes_proxy=cfg["excludes_proxy"],
        split=cfg["split"],
        decode_workers=snakemake.threads,
    )
    table = compression_of(datasets, from_params(DatasetView, cfg["view"]), cfg["megabytes"])
    write_tables({"compression": table}, output)
