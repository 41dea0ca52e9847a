"""Compute the features of one run's snapshots on one dataset."""

from _run import run

with run(snakemake) as output:
    from _inputs import folder_of, paths, run_of
    from _networks import dataset_of
    from rib.base.settings import from_params
    from rib.evaluation.features import compute_epoch_features
    from rib.evaluation.run_on_dataset import RunOnDataset
    from rib.evaluation.settings import EpochFeatureSettings

    files = snakemake.input
    settings = from_params(EpochFeatureSettings, snakemake.params.cfg)
    compute_epoch_features(
        source=RunOnDataset(
            run=run_of(snakemake.wildcards),
            states=[],  # each snapshot is a state of its own
            checkpoints={},
            model_folder=folder_of(files.model),
            dataset=dataset_of(
                files, snakemake.wildcards.dataset, decode_workers=snakemake.threads
            ),
            view=settings.view,
            evaluation_batch_size=settings.evaluation_batch_size,
            compute=settings.compute,
        ),
        snapshots=paths(files.snapshots),
        limit=settings.limit,
        features=output["features"],
        index=output["index"],
        manifest=output["manifest"],
    )
