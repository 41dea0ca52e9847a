"""Split one dataset's source images into train, select and test."""

from _run import arguments, dataset_files, run

with run(snakemake) as out:
    from rib.data.split_dataset import split_dataset

    split_dataset(**arguments(split_dataset, snakemake, out, files=dataset_files(snakemake, "dataset")))
