"""Print what the configured grid costs."""

from pathlib import Path

from _run import run

with run(snakemake, "plan"):
    from rib.catalog import Catalog
    from rib.grid import Grid
    from rib.plan import lines, plan

    cfg = snakemake.params.cfg
    catalog = Catalog(map(Path, cfg["catalog"]))
    grid = Grid(cfg["config"], catalog)
    print("\n".join(lines(plan(grid, catalog, Path(cfg["results"])), grid)))
