"""Add results to DVC."""

from pathlib import Path

from _run import run

with run(snakemake):
    from rib.records.track import track

    track(snakemake.params.cfg["units"], Path(snakemake.params.cfg["report"]))
