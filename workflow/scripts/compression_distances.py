"""Measure how much datasets' pixels have in common by compressing them."""

from pathlib import Path

from _run import run

with run(snakemake, "compression_distances") as out:
    from rib.analysis.compression import write_compression

    cfg, files = snakemake.params.cfg, snakemake.input
    folders = [Path(path).parent for path in files.manifests]
    write_compression(
        folders=dict(zip(cfg["datasets"], folders, strict=True)),
        apart=dict.fromkeys(cfg["apart"], files.apart and Path(files.apart).parent),
        splits=dict(zip(cfg["split"], map(Path, files.splits), strict=True)),
        **{key: cfg[key] for key in ("images", "megabytes")},
        table=out["table"],
    )
