"""Compute the features of one run on one dataset."""

from _run import run

with run(snakemake) as output:
    from _inputs import run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.evaluation.features import compute_features
    from rib.evaluation.settings import FeatureSettings

    files = snakemake.input
    settings = from_params(FeatureSettings, snakemake.params.cfg)
    compute_features(
        source=run_on_dataset(
            files,
            run=run_of(snakemake.wildcards),
            dataset=dataset_of(
                files, snakemake.wildcards.dataset, decode_workers=snakemake.threads
            ),
            settings=settings,
        ),
        layers=settings.layers,
        limit=settings.limit,
        features=output["features"],
        index=output["index"],
        manifest=output["manifest"],
    )
