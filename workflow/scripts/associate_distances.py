"""Compare distances between datasets with effects of fine-tuning."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.distances.association import all_distances, association_table
    from rib.analyses.distances.settings import AssociationSettings
    from rib.base.settings import from_params
    from rib.statistics.fit import read_table
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(AssociationSettings, snakemake.params.cfg)
    files = snakemake.input
    distances = all_distances(settings.models, paths(files.features), paths(files.compression))
    association = association_table(
        distances, read_table(Path(files.accuracy)), read_table(Path(files.ri)), settings
    )
    write_tables(
        {"distances": distances, "association": association},
        output,
        fit=read_fit(Path(files.fit)),
        conditions=settings.conditions,
    )
