"""Fetch one archive."""

from _run import run

with run(snakemake) as output:
    from rib.base.params import from_params
    from rib.data.data_settings import DownloadSettings
    from rib.data.fetch.download import download

    settings = from_params(DownloadSettings, snakemake.params.cfg)
    download(
        source={**snakemake.params.source, **settings.source},
        target=output["archive"],
        what=snakemake.wildcards.name,
    )
