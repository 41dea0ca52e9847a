"""Compare pretrained and fine-tuned answers image by image."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "samples") as out:
    from rib.analysis.samples import write_tables

    write_tables(
        rows=map(Path, snakemake.input.rows),
        **{key: snakemake.params.cfg[key] for key in ("among", "groups", "conditions")},
        **snakemake.params.cfg["statistics"],
        **{name: out[name] for name in ("samples", "flips")},
    )
