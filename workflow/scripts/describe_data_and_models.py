"""Describe the datasets and models of a run."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.data_and_models.settings import DataAndModelsSettings
    from rib.analyses.data_and_models.tables import (
        PreparedFiles,
        data_table,
        label_table,
        model_table,
    )
    from rib.base.settings import from_params
    from rib.statistics.writing import write_tables

    settings = from_params(DataAndModelsSettings, snakemake.params.cfg)
    files = PreparedFiles(
        manifests=paths(snakemake.input.prepared),
        indexes=paths(snakemake.input.indexes),
        classes=paths(snakemake.input.classes),
    )
    splits = dict(zip(settings.split, paths(snakemake.input.splits), strict=True))
    tables = {
        "data": data_table(settings.datasets, files, Path(snakemake.input.accuracy), splits),
        "models": model_table(settings.models, paths(snakemake.input.descriptions)),
    }
    if snakemake.input.verdicts:
        tables["labels"] = label_table(settings.datasets, paths(snakemake.input.verdicts))
    write_tables(tables, output, conditions=settings.conditions)
