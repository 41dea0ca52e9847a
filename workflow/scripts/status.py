"""Print the progress of the grid."""

from _run import run

with run(snakemake):
    from rib.reporting.status import at_work, status

    cfg = snakemake.params.cfg
    print("\n".join(status(cfg["records"], at_work(), cfg["jobs_at_once"])))
