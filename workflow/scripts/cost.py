"""Add up what one mRI of each method costs."""

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "cost") as out:
    from rib.analysis.cost import write_costs

    write_costs(**{key: snakemake.params.cfg[key] for key in ("records", "parents", "conditions")}, table=out["table"])
