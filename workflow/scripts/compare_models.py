"""Compare pretrained models that were fine-tuned with the same method."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.analyses.models.settings import ModelComparisonSettings
    from rib.analyses.models.tables import model_tables
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(ModelComparisonSettings, snakemake.params.cfg)
    fit = Path(snakemake.input.fit)
    tables = model_tables(Path(snakemake.input.counts), fit, settings)
    write_tables(tables, output, fit=read_fit(fit), conditions=settings.conditions)
