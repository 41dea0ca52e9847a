"""Compare the methods of a grid."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.analysis.comparison import comparison_tables
    from rib.analysis.settings import MethodComparisonSettings
    from rib.analysis.writing import read_fit, write_tables
    from rib.base.settings import from_params

    settings = from_params(MethodComparisonSettings, snakemake.params.cfg)
    fit = Path(snakemake.input.fit)
    tables = comparison_tables(Path(snakemake.input.counts), fit, settings)
    write_tables(tables, output, fit=read_fit(fit), conditions=settings.conditions)
