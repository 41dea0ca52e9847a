"""Compute the Fisher information of one run on its target.

That of a pretrained model is on the pretraining proxy.
"""

from _run import run

with run(snakemake, warm="networks") as output:
    from _inputs import run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.config.run import NO_TARGET
    from rib.evaluation.fisher import compute_fisher
    from rib.evaluation.settings import FisherSettings

    files = snakemake.input
    settings = from_params(FisherSettings, snakemake.params.cfg)
    fisher_run = run_of(snakemake.wildcards)
    is_pretrained = fisher_run.target == NO_TARGET
    dataset_name = "reference" if is_pretrained else fisher_run.target
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
