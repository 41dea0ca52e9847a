"""Choose a variant of each sweep."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _datasets import row_files
    from rib.analyses.selection.settings import VariantChoiceSettings
    from rib.analyses.selection.tables import select_variants
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(VariantChoiceSettings, snakemake.params.cfg)
    table = select_variants(
        counts=Path(snakemake.input.counts),
        select_files=row_files(snakemake.input, settings.methods),
        settings=settings,
    )
    fit = read_fit(Path(snakemake.input.fit))
    write_tables({"selection": table}, output, fit=fit, conditions=settings.conditions)
