"""Add results to DVC, to be shared."""

from _run import run

with run(snakemake):
    from rib.base.settings import from_params
    from rib.records.settings import TrackSettings
    from rib.records.track import track

    settings = from_params(TrackSettings, snakemake.params.cfg)
    track(settings.units, settings.report)
