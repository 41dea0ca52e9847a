"""Compute the features of one run on one dataset."""

from _run import run

with run(snakemake, warm="networks") as output:
    from _inputs import folder_of, optional_folder, optional_path, run_of
    from _networks import run_on_dataset
    from rib.base.settings import from_params
    from rib.data.view import DatasetFiles
    from rib.evaluation.features import compute_features
    from rib.evaluation.settings import FeatureSettings

    files = snakemake.input
    settings = from_params(FeatureSettings, snakemake.params.cfg)
    compute_features(
        source=run_on_dataset(
            files,
            run=run_of(snakemake.wildcards),
            dataset=DatasetFiles(
                name=snakemake.wildcards.dataset,
                folder=folder_of(files.dataset),
                proxy=optional_folder(files.dataset_proxy),
                split=optional_path(files.dataset_split),
                workers=snakemake.threads,
            ),
            settings=settings,
        ),
        layers=settings.layers,
        limit=settings.limit,
        features=output["features"],
        index=output["index"],
        manifest=output["manifest"],
    )
