"""Compute accuracies, RI and mRI from the rows of the whole grid."""

from _run import run

with run(snakemake) as output:
    from _inputs import optional_folder, paths
    from rib.base.params import from_params
    from rib.statistics.metrics import write_metrics
    from rib.statistics.statistics_settings import GridTableSettings

    write_metrics(
        rows=paths(snakemake.input.rows),
        manifests=paths(snakemake.input.row_manifests),
        indexes=paths(snakemake.input.indexes),
        proxy=optional_folder(snakemake.input.proxy),
        splits=paths(snakemake.input.splits),
        settings=from_params(GridTableSettings, snakemake.params.cfg),
        outputs=output,
    )
