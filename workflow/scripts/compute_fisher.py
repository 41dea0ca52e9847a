"""Compute the Fisher information of one run on its target.

That of a pretrained model is on the pretraining proxy.
"""

from _run import run

with run(snakemake, warm="networks") as output:
    from _inputs import folder_of, optional_folder, optional_path, run_of
    from _networks import run_on_dataset
    from rib.base.settings import from_params
    from rib.config.run import NO_TARGET
    from rib.data.view import DatasetFiles
    from rib.evaluation.fisher import compute_fisher
    from rib.evaluation.settings import FisherSettings

    files = snakemake.input
    settings = from_params(FisherSettings, snakemake.params.cfg)
    fisher_run = run_of(snakemake.wildcards)
    compute_fisher(
        source=run_on_dataset(
            files,
            run=fisher_run,
            dataset=DatasetFiles(
                name="reference" if fisher_run.target == NO_TARGET else fisher_run.target,
                folder=folder_of(files.dataset),
                proxy=optional_folder(files.get("dataset_proxy", [])),
                split=optional_path(files.dataset_split),
                workers=snakemake.threads,
            ),
            settings=settings,
        ),
        fisher_images=settings.fisher_images,
        kind=settings.kind,
        fisher=output["fisher"],
        manifest=output["manifest"],
    )
