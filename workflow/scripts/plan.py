"""Print the estimated cost of the grid."""

from pathlib import Path

from _run import run

with run(snakemake):
    from rib.config.catalog import Catalog
    from rib.config.grid import resolve_grid
    from rib.reporting.cost_estimate import count_jobs, lines, plan

    cfg = snakemake.params.cfg
    catalog = Catalog(map(Path, cfg["catalog"]))
    grid = resolve_grid(cfg["config"], catalog)
    print("\n".join(lines(plan(grid, catalog, Path(cfg["results"]), count_jobs(cfg["config"])), grid)))
