"""Invert the representation that one run has of the images of one dataset."""

from _run import run

with run(snakemake) as output:
    from _inputs import run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.evaluation.inversion import invert_run
    from rib.evaluation.settings import InversionJobSettings

    files = snakemake.input
    settings = from_params(InversionJobSettings, snakemake.params.cfg)
    invert_run(
        source=run_on_dataset(
            files,
            run=run_of(snakemake.wildcards),
            dataset=dataset_of(
                files, snakemake.wildcards.dataset, decode_workers=snakemake.threads
            ),
            settings=settings,
        ),
        settings=settings.inversion,
        inverted=output["inverted"],
        index=output["index"],
        manifest=output["manifest"],
    )
