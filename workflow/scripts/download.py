"""Fetch one archive."""

from _run import run

with run(snakemake) as out:
    from rib.data.download import download

    source = {**snakemake.params.cfg["source"], "urls": snakemake.params.urls}
    download(source, out["archive"], snakemake.wildcards.name)
