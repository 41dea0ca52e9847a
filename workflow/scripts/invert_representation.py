"""Invert one run's representation of the images of one dataset."""

from _run import run

with run(snakemake) as output:
    from _networks import dataset_of, networks_of_job
    from rib.base.params import from_params
    from rib.evaluation.evaluation_settings import InversionSettings
    from rib.evaluation.inversion import invert_run
    from rib.schema.run import Run

    files = snakemake.input
    inverted_run = Run.from_wildcards(snakemake.wildcards)
    settings = from_params(InversionSettings, snakemake.params.cfg)
    invert_run(
        run=inverted_run,
        networks=networks_of_job(files, inverted_run, settings),
        dataset=dataset_of(files, snakemake.wildcards.dataset, decode_workers=snakemake.threads),
        settings=settings,
        inverted=output["inverted"],
        index=output["index"],
        manifest=output["manifest"],
    )
