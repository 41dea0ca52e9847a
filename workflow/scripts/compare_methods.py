"""Compare the methods of a grid."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.settings import from_params
    from rib.statistics.comparison import comparison_tables
    from rib.statistics.settings import MethodComparisonSettings
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(MethodComparisonSettings, snakemake.params.cfg)
    fit = Path(snakemake.input.fit)
    tables = comparison_tables(Path(snakemake.input.counts), fit, settings)
    write_tables(tables, output, fit=read_fit(fit), conditions=settings.conditions)
