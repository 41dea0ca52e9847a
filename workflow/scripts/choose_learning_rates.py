"""Choose learning rates from a sweep."""

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.learning_rates.settings import LearningRateSettings
    from rib.analyses.learning_rates.tables import choice_table
    from rib.base.settings import from_params
    from rib.statistics.writing import write_tables

    settings = from_params(LearningRateSettings, snakemake.params.cfg)
    table = choice_table(
        manifests=paths(snakemake.input.manifests),
        histories=paths(snakemake.input.histories),
        settings=settings,
    )
    write_tables({"learning_rates": table}, output, conditions=settings.conditions)
