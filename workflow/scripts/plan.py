"""Show the estimated cost of the grid."""

from _run import run

with run(snakemake):
    from rib.base.settings import from_params
    from rib.reporting.cost_estimate import print_plan
    from rib.reporting.settings import PlanSettings

    settings = from_params(PlanSettings, snakemake.params.cfg)
    print_plan(
        config=settings.config,
        catalog=settings.catalog,
        results=settings.results,
        full_run=settings.full_run,
        cores=settings.cores,
        gpus=settings.gpus,
    )
