"""Compare the predictions of pretrained and fine-tuned models image by image."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _datasets import row_files
    from _inputs import paths
    from rib.analyses.samples.settings import SampleSettings
    from rib.analyses.samples.tables import sample_tables
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(SampleSettings, snakemake.params.cfg)
    tables = sample_tables(
        files=row_files(snakemake.input, settings.methods),
        classes=paths(snakemake.input.classes),
        settings=settings,
    )
    fit = read_fit(Path(snakemake.input.fit))
    write_tables(tables, output, fit=fit, conditions=settings.conditions)
