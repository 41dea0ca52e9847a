"""Gather the training histories of all fine-tunings in one table."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.training.tables import training_table
    from rib.base.settings import from_params
    from rib.statistics.settings import TableSettings
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(TableSettings, snakemake.params.cfg)
    table = training_table(paths(snakemake.input.histories))
    fit = read_fit(Path(snakemake.input.fit))
    write_tables({"training": table}, output, fit=fit, conditions=settings.conditions)
