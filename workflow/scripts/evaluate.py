"""Score the networks of a job on its datasets: one row per network and image."""

from _run import run

with run(snakemake) as output:
    from _inputs import folder_of, paths
    from _networks import networks_of_job
    from rib.base.params import from_params
    from rib.data.view import DatasetFiles
    from rib.evaluation.evaluate import evaluate
    from rib.evaluation.evaluation_settings import EvaluationSettings
    from rib.schema.run import Run

    files = snakemake.input
    wildcards = snakemake.wildcards
    settings = from_params(EvaluationSettings, snakemake.params.cfg)
    splits = paths(files.splits)  # one per dataset, or none
    datasets = []
    for number, (name, manifest) in enumerate(zip(settings.datasets, files.datasets, strict=True)):
        datasets.append(
            DatasetFiles(
                name=name,
                folder=folder_of(manifest),
                proxy=folder_of(files.proxy) if name in settings.excludes_proxy else None,
                split=splits[number] if splits else None,
                decode_workers=snakemake.threads,
            )
        )
    # The entry names all networks together; each network has its own method.
    run_of_entry = Run(
        model=wildcards.model,
        target=wildcards.target,
        method=wildcards.entry,
        size=wildcards.size,
        seed=int(wildcards.seed),
    )
    evaluate(
        run=run_of_entry,
        networks=networks_of_job(files, run_of_entry, settings),
        checkpoint_manifests=paths(files.checkpoint_manifests),
        datasets=datasets,
        settings=settings,
        rows=output["rows"],
        manifest=output["manifest"],
    )
