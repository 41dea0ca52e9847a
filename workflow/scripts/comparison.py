"""Compare the methods of each model."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "comparison") as out:
    from rib.analysis.comparison import COLUMNS, DRAWS, write_comparison

    write_comparison(
        counts=Path(snakemake.input.counts),
        **{key: snakemake.params.cfg[key] for key in ("among", "groups", "conditions")},
        **snakemake.params.cfg["statistics"],
        draws=DRAWS,
        outputs={name: out[name] for name in COLUMNS},
    )
