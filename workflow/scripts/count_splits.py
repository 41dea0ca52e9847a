"""Count the images that train, select and test."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "count_splits") as out:
    from rib.analysis.splits import write_counts

    cfg = snakemake.params.cfg
    write_counts(
        splits=dict(zip(cfg["datasets"], map(Path, snakemake.input.splits), strict=True)),
        conditions=cfg["conditions"],
        table=out["table"],
    )
