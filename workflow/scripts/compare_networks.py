"""Compare groups of networks that differ only in what chance decides in pretraining."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.networks.settings import NetworkGroupSettings
    from rib.analyses.networks.tables import network_tables
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(NetworkGroupSettings, snakemake.params.cfg)
    fit = Path(snakemake.input.fit)
    tables = network_tables(
        counts=Path(snakemake.input.counts),
        fit=fit,
        descriptions=paths(snakemake.input.descriptions),
        settings=settings,
    )
    write_tables(tables, output, fit=read_fit(fit), conditions=settings.conditions)
