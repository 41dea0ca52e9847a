"""Compute features of a pretrained and a fine-tuned network for images and their inversions."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.evaluation.inversion import cross_features
    from rib.evaluation.settings import InversionJobSettings

    files = snakemake.input
    settings = from_params(InversionJobSettings, snakemake.params.cfg)
    cross_features(
        source=run_on_dataset(
            files,
            run=run_of(snakemake.wildcards),
            dataset=dataset_of(
                files, snakemake.wildcards.dataset, decode_workers=snakemake.threads
            ),
            settings=settings,
        ),
        settings=settings.inversion,
        inverted_before=Path(files.inverted_before),
        inverted_after=Path(files.inverted_after),
        features=output["features"],
    )
