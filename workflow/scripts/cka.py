"""Write the table of CKA."""

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "cka") as out:
    from rib.analysis.cka import write_cka

    cfg = snakemake.params.cfg
    write_cka(
        features=snakemake.input.features,
        **{key: cfg[key] for key in ("among", "conditions", "confidence")},
        table=out["table"],
    )
