"""Get shared results from DVC's storage."""

from _run import run

with run(snakemake):
    from rib.base.settings import from_params
    from rib.records.pull import pull
    from rib.records.settings import PullSettings

    settings = from_params(PullSettings, snakemake.params.cfg)
    pull(settings.wanted)
