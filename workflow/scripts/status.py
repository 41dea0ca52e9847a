"""Print how far the grid has come."""

from _run import run

with run(snakemake, "status"):
    from rib.status import at_work, status

    cfg = snakemake.params.cfg
    print("\n".join(status(cfg["cells"], at_work(snakemake.log[0]), cfg["jobs_at_once"])))
