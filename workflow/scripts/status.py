"""Show the progress of the grid."""

from _run import run

with run(snakemake):
    from rib.base.settings import from_params
    from rib.reporting.settings import StatusSettings
    from rib.reporting.status import print_status

    settings = from_params(StatusSettings, snakemake.params.cfg)
    print_status(settings.records, settings.jobs_at_once, settings.logs)
