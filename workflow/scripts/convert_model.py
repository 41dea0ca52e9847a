"""Convert and check one pretrained model."""

from _run import run

with run(snakemake) as output:
    from _inputs import dataset_of_manifest, folder_of, paths
    from rib.base.params import from_params
    from rib.data.view import DatasetFiles
    from rib.models.convert import convert
    from rib.models.model_settings import ConversionSettings

    files = snakemake.input
    reference = None
    if files.reference:
        reference = DatasetFiles(
            name=dataset_of_manifest(files.reference),
            folder=folder_of(files.reference),
            decode_workers=snakemake.threads,
        )
    convert(
        archives=paths(files.archives),
        reference=reference,
        settings=from_params(ConversionSettings, snakemake.params.cfg),
        weights=output["weights"],
        description=output["description"],
    )
