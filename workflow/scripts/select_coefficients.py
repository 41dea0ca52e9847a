"""Select one merge by its accuracy on held-out images of the target."""

from _run import run

with run(snakemake) as output:
    from _inputs import checkpoints_of, folder_of, optional_folder, optional_path
    from rib.base.params import from_params
    from rib.data.view import DatasetFiles
    from rib.evaluation.evaluation_settings import NetworkSettings
    from rib.evaluation.select_coefficients import select_coefficients

    files = snakemake.input
    settings = from_params(NetworkSettings, snakemake.params.cfg)
    select_coefficients(
        method=snakemake.wildcards.method,
        model_folder=folder_of(files.model),
        target=DatasetFiles(
            name=snakemake.wildcards.target,
            folder=folder_of(files.target),
            proxy=optional_folder(files.target_proxy),
            split=optional_path(files.target_split),
            decode_workers=snakemake.threads,
        ),
        checkpoints=checkpoints_of(settings.parents, files.checkpoints),
        settings=settings,
        selection=output["selection"],
    )
