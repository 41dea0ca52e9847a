"""Plot one figure."""

from _run import run

with run(snakemake, "figures") as out:
    from rib.figures import write_figure
    from rib.figures.before_after import before_after

    cfg = {key: value for key, value in snakemake.params.cfg.items() if key != "code"}
    write_figure(before_after, snakemake.input.ood, cfg, **{key: out[key] for key in ("png", "pdf", "csv")})
