"""Compute the CKA of fine-tuned runs with their pretrained models, layer by layer."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.representations.settings import CkaSettings
    from rib.analyses.representations.tables import cka_table
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(CkaSettings, snakemake.params.cfg)
    table = cka_table(
        features=paths(snakemake.input.features),
        ood_datasets=settings.ood_datasets,
        confidence=settings.confidence,
    )
    write_tables(
        {"cka": table},
        output,
        fit=read_fit(Path(snakemake.input.fit)),
        conditions=settings.conditions,
    )
