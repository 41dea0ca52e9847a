"""Compare all that a grid made with its records."""

from pathlib import Path

from _run import run

with run(snakemake, "verify"):
    from rib.provenance import below
    from rib.verify import verify

    cfg = snakemake.params.cfg
    verify([*cfg["records"], *map(str, below([Path(cfg["reports"])]))], snakemake.log[0])
