"""Compute accuracies, RI and mRI from the rows of the whole grid."""

from _run import run

with run(snakemake) as output:
    from _datasets import dataset_group, row_files
    from _inputs import paths
    from rib.base.settings import from_params
    from rib.statistics.metrics import write_metrics
    from rib.statistics.settings import GridTableSettings

    settings = from_params(GridTableSettings, snakemake.params.cfg)
    write_metrics(
        files=row_files(snakemake.input, settings.methods),
        manifests=paths(snakemake.input.manifests),
        datasets=dataset_group(
            snakemake.input, settings.excludes_proxy, settings.split, snakemake.threads
        ),
        settings=settings,
        outputs=output,
    )
