"""Plot one figure."""

from _run import run

with run(snakemake, "figures") as out:
    from rib.figures import write_figure

    write_figure(
        snakemake.wildcards.figure,
        dict(snakemake.params.inputs),
        snakemake.params.cfg["settings"],
        **{key: out[key] for key in ("png", "pdf", "csv")},
    )
