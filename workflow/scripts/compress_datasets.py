"""Measure distances between datasets by compressing their pixels."""

from pathlib import Path

from _run import arguments, dataset_group, run

with run(snakemake) as out:
    from rib.analysis.compression import write_compression

    folders = dict(zip(snakemake.params.cfg["datasets"], map(Path, snakemake.input.manifests), strict=True))
    folders = {name: path.parent for name, path in folders.items()}
    write_compression(**arguments(write_compression, snakemake, out, datasets=dataset_group(snakemake, folders)))
