"""Put what runs made under DVC."""

from pathlib import Path

from _run import run

with run(snakemake, "track"):
    from rib.track import track

    track(snakemake.params.cfg["units"], Path(snakemake.params.cfg["report"]))
