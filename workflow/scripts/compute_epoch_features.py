"""Compute the features of one run's snapshots on one dataset."""

from _run import run

with run(snakemake) as output:
    from _inputs import folder_of, paths
    from _networks import dataset_of
    from rib.base.params import from_params
    from rib.evaluation.evaluation_settings import FeatureSettings
    from rib.evaluation.features import compute_epoch_features
    from rib.schema.run import Run

    files = snakemake.input
    settings = from_params(FeatureSettings, snakemake.params.cfg)
    compute_epoch_features(
        run=Run.from_wildcards(snakemake.wildcards),
        model_folder=folder_of(files.model),
        snapshots=paths(files.snapshots),
        dataset=dataset_of(files, snakemake.wildcards.dataset, decode_workers=snakemake.threads),
        settings=settings,
        features=output["features"],
        index=output["index"],
        manifest=output["manifest"],
    )
