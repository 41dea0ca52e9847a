"""Compute the Fisher information of one run on its target.

That of a pretrained model is on the pretraining proxy.
"""

from _run import run

with run(snakemake) as output:
    from _inputs import dataset_of_manifest, run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.evaluation.fisher import compute_fisher
    from rib.evaluation.settings import FisherSettings

    files = snakemake.input
    settings = from_params(FisherSettings, snakemake.params.cfg)
    fisher_run = run_of(snakemake.wildcards)
    dataset_name = dataset_of_manifest(files.dataset)
    compute_fisher(
        source=run_on_dataset(
            files,
            run=fisher_run,
            dataset=dataset_of(files, dataset_name, decode_workers=snakemake.threads),
            settings=settings,
        ),
        fisher_images=settings.fisher_images,
        kind=settings.kind,
        fisher=output["fisher"],
        manifest=output["manifest"],
    )
