"""Measure how far datasets lie apart in a pretrained model's feature space."""

from pathlib import Path

from _run import run

with run(snakemake, "distances") as out:
    from rib.analysis.distances import write_distances

    names, files = snakemake.params.cfg["datasets"], map(Path, snakemake.input.features)
    write_distances(dict(zip(names, files, strict=True)), out["table"])
