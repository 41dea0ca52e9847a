"""Compute the features of one run on one dataset."""

from _run import run

with run(snakemake) as output:
    from _networks import dataset_of, networks_of_job
    from rib.base.params import from_params
    from rib.evaluation.evaluation_settings import FeatureSettings
    from rib.evaluation.features import compute_features
    from rib.schema.run import Run

    files = snakemake.input
    run_of_features = Run.from_wildcards(snakemake.wildcards)
    settings = from_params(FeatureSettings, snakemake.params.cfg)
    compute_features(
        run=run_of_features,
        networks=networks_of_job(files, run_of_features, settings),
        dataset=dataset_of(files, snakemake.wildcards.dataset, decode_workers=snakemake.threads),
        settings=settings,
        features=output["features"],
        index=output["index"],
        manifest=output["manifest"],
    )
