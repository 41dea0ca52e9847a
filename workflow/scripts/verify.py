"""Check the results of a grid against their records."""

from pathlib import Path

from _run import run

with run(snakemake):
    from rib.records.provenance import below
    from rib.records.verify import verify

    cfg = snakemake.params.cfg
    verify([*cfg["records"], *map(str, below([Path(cfg["reports"])]))], snakemake.log[0])
