"""Count the images in the splits of each dataset."""

from _run import run

with run(snakemake, warm="tables") as output:
    from _inputs import paths
    from rib.analyses.splits.settings import SplitCountSettings
    from rib.analyses.splits.tables import split_table
    from rib.analysis.writing import write_tables
    from rib.base.settings import from_params

    settings = from_params(SplitCountSettings, snakemake.params.cfg)
    splits = dict(zip(settings.datasets, paths(snakemake.input.splits), strict=True))
    write_tables({"splits": split_table(splits)}, output, conditions=settings.conditions)
