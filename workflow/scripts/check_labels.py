"""Check the labels of all evaluated datasets by a pretrained model's predictions."""

from _run import run

with run(snakemake) as output:
    from _inputs import folder_of
    from rib.base.params import from_params
    from rib.data.view import DatasetFiles
    from rib.evaluation.evaluation_settings import LabelCheckSettings
    from rib.evaluation.first_predictions import predict_first_images
    from rib.statistics.label_check import check_labels

    files = snakemake.input
    settings = from_params(LabelCheckSettings, snakemake.params.cfg)
    datasets = [
        DatasetFiles(
            name=name,
            folder=folder_of(manifest),
            proxy=folder_of(files.proxy) if name in settings.excludes_proxy else None,
            decode_workers=snakemake.threads,
        )
        for name, manifest in zip(settings.datasets, files.datasets, strict=True)
    ]
    check_labels(
        model=snakemake.wildcards.model,
        predictions=predict_first_images(
            model_folder=folder_of(files.model), datasets=datasets, settings=settings
        ),
        folders={dataset.name: dataset.folder for dataset in datasets},
        labels_checked=settings.labels_checked,
        verdicts=output["verdicts"],
    )
