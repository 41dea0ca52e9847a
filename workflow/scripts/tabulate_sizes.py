"""Tabulate robustness by the numbers of fine-tuning and of pretraining images."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.sizes.settings import SizeSettings
    from rib.analyses.sizes.tables import GridTables, size_tables
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(SizeSettings, snakemake.params.cfg)
    tables = size_tables(
        tables=GridTables(
            ri=Path(snakemake.input.ri),
            mri=Path(snakemake.input.mri),
            ood=Path(snakemake.input.ood),
        ),
        manifests=paths(snakemake.input.manifests),
        descriptions=paths(snakemake.input.descriptions),
        settings=settings,
    )
    fit = read_fit(Path(snakemake.input.fit))
    write_tables(tables, output, fit=fit, conditions=settings.conditions)
