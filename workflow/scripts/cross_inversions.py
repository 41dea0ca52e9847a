"""Compute features of a pretrained and a fine-tuned network for images and their inversions."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _networks import dataset_of, networks_of_job
    from rib.base.params import from_params
    from rib.evaluation.evaluation_settings import InversionSettings
    from rib.evaluation.inversion import cross_features
    from rib.schema.run import Run

    files = snakemake.input
    fine_tuned_run = Run.from_wildcards(snakemake.wildcards)
    settings = from_params(InversionSettings, snakemake.params.cfg)
    cross_features(
        run=fine_tuned_run,
        networks=networks_of_job(files, fine_tuned_run, settings),
        dataset=dataset_of(files, snakemake.wildcards.dataset, decode_workers=snakemake.threads),
        settings=settings,
        inverted_before=Path(files.inverted_before),
        inverted_after=Path(files.inverted_after),
        features=output["features"],
    )
