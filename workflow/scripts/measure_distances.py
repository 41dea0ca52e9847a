"""Measure distances between datasets in a pretrained model's feature space."""

from _run import arguments, run

with run(snakemake) as out:
    from rib.analysis.distances import write_distances

    write_distances(**arguments(write_distances, snakemake, out))
