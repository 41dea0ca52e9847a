"""Check results and their inputs against the provenance records."""

from _run import run

with run(snakemake):
    from rib.base.settings import from_params
    from rib.records.settings import VerifySettings
    from rib.records.verify import verify

    settings = from_params(VerifySettings, snakemake.params.cfg)
    verify(settings.records, settings.log_file, settings.folders)
