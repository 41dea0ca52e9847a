"""Fetch one archive."""

from _run import run

with run(snakemake) as output:
    from rib.base.settings import from_params
    from rib.data.download import download
    from rib.data.settings import DownloadSettings

    settings = from_params(DownloadSettings, snakemake.params.cfg)
    download(
        source={**snakemake.params.source, **settings.source},
        target=output["archive"],
        what=snakemake.wildcards.name,
    )
