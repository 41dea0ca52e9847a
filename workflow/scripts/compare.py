"""Check and compare bundles of several groups."""

from _run import run

with run(snakemake):
    from rib.base.settings import from_params
    from rib.reporting.compare import compare
    from rib.reporting.settings import ComparisonSettings

    settings = from_params(ComparisonSettings, snakemake.params.cfg)
    compare(settings.bundles, settings.statistics, settings.log_file, settings.folder)
