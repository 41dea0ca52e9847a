"""Sum up the costs of one mRI of each method."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.analyses.cost.settings import CostSettings
    from rib.analyses.cost.tables import cost_of

    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(CostSettings, snakemake.params.cfg)
    write_tables(
        {"cost": cost_of(settings)},
        output,
        fit=read_fit(Path(snakemake.input.fit)),
        conditions=settings.conditions,
    )
