"""Compare pretrained accuracies with published ones."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "published") as out:
    from rib.published import compare

    compare(
        rows=map(Path, snakemake.input.rows),
        published=snakemake.params.cfg["published"],
        **{key: snakemake.params.cfg[key] for key in ("expected", "obstacle")},
        table=out["table"],
    )
