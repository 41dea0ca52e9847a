"""Compute accuracies by slices of datasets, and mean corruption errors."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _datasets import row_files
    from rib.analyses.slices.settings import SliceSettings
    from rib.analyses.slices.tables import slice_tables
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(SliceSettings, snakemake.params.cfg)
    tables = slice_tables(row_files(snakemake.input, settings.methods), settings)
    fit = read_fit(Path(snakemake.input.fit))
    write_tables(tables, output, fit=fit, conditions=settings.conditions)
