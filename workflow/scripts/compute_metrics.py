"""Compute accuracies, RI and mRI from the rows of the whole grid."""

from _run import run

with run(snakemake) as output:
    from _datasets import dataset_group, row_files
    from _inputs import paths
    from rib.base.files import write_json
    from rib.base.settings import from_params
    from rib.statistics.settings import GridTableSettings
    from rib.statistics.tables import grid_tables, json_by_method
    from rib.statistics.writing import write_tables

    settings = from_params(GridTableSettings, snakemake.params.cfg)
    tables = grid_tables(
        files=row_files(snakemake.input, settings.methods),
        manifests=paths(snakemake.input.manifests),
        datasets=dataset_group(
            snakemake.input, settings.excludes_proxy, settings.split, snakemake.threads
        ),
        settings=settings,
        counts_file=output["counts"],
        with_classes="classes" in output,
    )
    write_json(output["mri_json"], json_by_method(tables["mri"]))
    write_tables(tables, output, fit=tables["fit"], conditions=settings.conditions)
