"""Compute distances between datasets in the feature space of a pretrained model."""

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.distances.measure import distances_of
    from rib.statistics.writing import write_tables

    table = distances_of(
        datasets=snakemake.params.cfg["datasets"], features=paths(snakemake.input.features)
    )
    write_tables({"distances": table}, output)
