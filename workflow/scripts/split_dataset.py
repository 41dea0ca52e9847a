"""Split one dataset's source images into train, select and test."""

from _run import run

with run(snakemake) as output:
    from _inputs import folder_of, optional_folder, paths
    from rib.base.params import from_params
    from rib.data.data_settings import SplitSettings
    from rib.data.split_dataset import EarlierSplit, split_dataset
    from rib.data.view import DatasetFiles

    files = snakemake.input
    settings = from_params(SplitSettings, snakemake.params.cfg)
    tables = paths(files.earlier)
    indexes = paths(files.earlier_indexes)
    earlier = []
    for table, index, same_sources in zip(tables, indexes, settings.same_sources, strict=True):
        earlier.append(EarlierSplit(table=table, index=index, same_sources=same_sources))
    split_dataset(
        files=DatasetFiles(
            name=snakemake.wildcards.dataset,
            folder=folder_of(files.dataset),
            proxy=optional_folder(files.dataset_proxy),
            decode_workers=snakemake.threads,
        ),
        view=settings.view,
        fractions=settings.fractions,
        earlier=earlier,
        table=output["table"],
    )
