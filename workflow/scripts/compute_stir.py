"""Compute STIR of fine-tuned runs and their pretrained models."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.stir.settings import StirSettings
    from rib.analyses.stir.tables import stir_table
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(StirSettings, snakemake.params.cfg)
    table = stir_table(
        features=paths(snakemake.input.features),
        indexes=paths(snakemake.input.indexes),
        layer=settings.layer,
        steps=settings.steps,
        confidence=settings.confidence,
    )
    write_tables(
        {"stir": table},
        output,
        fit=read_fit(Path(snakemake.input.fit)),
        conditions=settings.conditions,
    )
