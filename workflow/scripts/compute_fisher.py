"""Compute Fisher information: of a run on its target, of a pretrained model on the proxy."""

from _run import run

with run(snakemake) as output:
    from _inputs import dataset_of_manifest
    from _networks import dataset_of, networks_of_job
    from rib.base.params import from_params
    from rib.evaluation.compute_fisher import compute_fisher
    from rib.evaluation.evaluation_settings import FisherSettings
    from rib.schema.run import Run

    files = snakemake.input
    settings = from_params(FisherSettings, snakemake.params.cfg)
    fisher_run = Run.from_wildcards(snakemake.wildcards)
    compute_fisher(
        run=fisher_run,
        networks=networks_of_job(files, fisher_run, settings),
        dataset=dataset_of(
            files, dataset_of_manifest(files.dataset), decode_workers=snakemake.threads
        ),
        settings=settings,
        fisher=output["fisher"],
        manifest=output["manifest"],
    )
