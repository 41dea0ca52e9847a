"""Write a bundle of the run."""

from pathlib import Path

from _run import run

with run(snakemake, warm="tables") as output:
    from rib.base.settings import from_params
    from rib.reporting.bundle import write_bundle
    from rib.reporting.settings import BundleSettings

    settings = from_params(BundleSettings, snakemake.params.cfg)
    write_bundle(
        rows=[Path(file) for file in snakemake.input.rows],
        more=[Path(file) for file in snakemake.input.more],
        records=settings.records,
        config=settings.config,
        bundle=output["bundle"],
    )
