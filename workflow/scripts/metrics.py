"""Write the tables of a grid."""

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "metrics") as out:
    from rib.metrics import write_tables

    names = ("accuracy", "ri", "mri", "mri_json", "ood", "curves", "counts")
    write_tables(
        rows=snakemake.input.rows,
        manifests=snakemake.input.manifests,
        **{key: snakemake.params.cfg[key] for key in ("among", "groups", "conditions")},
        **snakemake.params.cfg["statistics"],
        outputs={name: out[name] for name in names},
    )
