"""Write the table of CKA over epochs."""

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "cka_epochs") as out:
    from rib.analysis.cka import write_cka_epochs

    cfg = snakemake.params.cfg
    write_cka_epochs(
        **{key: snakemake.input[key] for key in ("before", "after")},
        **{key: cfg[key] for key in ("epochs", "among", "conditions", "confidence")},
        table=out["table"],
    )
