"""Fetch one archive."""

from _run import run

with run(snakemake) as out:
    from rib.data.download import download

    download(
        {**snakemake.params.cfg["source"], "urls": snakemake.params.urls}, out["archive"], snakemake.wildcards.name
    )
