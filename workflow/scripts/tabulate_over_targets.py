"""Tabulate accuracies of merges over targets."""

from _run import run

with run(snakemake) as output:
    from _datasets import row_files
    from _inputs import paths
    from rib.analyses.over_targets.settings import OverTargetsSettings
    from rib.analyses.over_targets.tables import over_targets_table
    from rib.base.settings import from_params
    from rib.statistics.writing import write_tables

    settings = from_params(OverTargetsSettings, snakemake.params.cfg)
    table = over_targets_table(
        files=row_files(snakemake.input, settings.methods),
        manifests=paths(snakemake.input.manifests),
        settings=settings,
    )
    write_tables({"merges_over_targets": table}, output, conditions=settings.conditions)
