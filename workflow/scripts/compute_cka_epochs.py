"""Compute the CKA of runs with their pretrained models in the course of training."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.epochs.settings import EpochCkaSettings
    from rib.analyses.epochs.tables import epoch_table
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(EpochCkaSettings, snakemake.params.cfg)
    table = epoch_table(
        before=paths(snakemake.input.before),
        after=paths(snakemake.input.after),
        snapshots=settings.snapshots,
        ood_datasets=settings.ood_datasets,
        confidence=settings.confidence,
    )
    write_tables(
        {"cka_epochs": table},
        output,
        fit=read_fit(Path(snakemake.input.fit)),
        conditions=settings.conditions,
    )
