"""Compute distances between datasets in the feature space of a pretrained model."""

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.distances.distances import distances_of
    from rib.analyses.distances.settings import FeatureDistanceSettings
    from rib.base.settings import from_params
    from rib.statistics.writing import write_tables

    settings = from_params(FeatureDistanceSettings, snakemake.params.cfg)
    table = distances_of(datasets=settings.datasets, features=paths(snakemake.input.features))
    write_tables({"distances": table}, output)
