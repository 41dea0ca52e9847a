"""Compare mRI with and without adversarially filtered datasets."""

from pathlib import Path

from _run import run

with run(snakemake, warm="tables") as output:
    from rib.analyses.filtered.settings import FilteredSettings
    from rib.analyses.filtered.tables import filtered_table
    from rib.analysis.writing import read_fit, write_tables
    from rib.base.settings import from_params

    settings = from_params(FilteredSettings, snakemake.params.cfg)
    table = filtered_table(Path(snakemake.input.counts), settings)
    write_tables(
        {"mri_without_filtered": table},
        output,
        fit=read_fit(Path(snakemake.input.fit)),
        conditions=settings.conditions,
    )
