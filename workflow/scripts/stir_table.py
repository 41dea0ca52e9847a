"""Write the table of STIR."""

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "stir_table") as out:
    from rib.analysis.stir import write_stir

    cfg = snakemake.params.cfg
    write_stir(
        **{key: snakemake.input[key] for key in ("features", "indexes")},
        **{key: cfg[key] for key in ("layer", "steps", "conditions", "confidence")},
        table=out["table"],
    )
