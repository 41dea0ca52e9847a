"""Plot one figure."""

from _run import named_inputs, run, warm_start

warm_start("tables")

with run(snakemake, "figures") as out:
    from rib.figures import write_figure

    write_figure(
        snakemake.wildcards.figure,
        named_inputs(snakemake),
        snakemake.params.cfg["settings"],
        **{key: snakemake.params.cfg[key] for key in ("size", "sizes", "geometry")},
        **{key: out[key] for key in ("png", "pdf", "csv")},
    )
