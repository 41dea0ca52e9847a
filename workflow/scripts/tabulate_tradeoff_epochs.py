"""Compute accuracy on the target and mRI in the course of training."""

from _run import run

with run(snakemake) as output:
    from _datasets import row_files
    from rib.analyses.epochs.settings import EpochTradeoffSettings
    from rib.analyses.epochs.tables import tradeoff_table
    from rib.base.settings import from_params
    from rib.statistics.writing import write_tables

    settings = from_params(EpochTradeoffSettings, snakemake.params.cfg)
    table = tradeoff_table(
        files=row_files(snakemake.input, settings.methods),
        ood_datasets=settings.ood_datasets,
        source_groups=settings.source_groups,
    )
    write_tables({"tradeoff_epochs": table}, output, conditions=settings.conditions)
