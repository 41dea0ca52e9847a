"""Split one dataset's source images into train, select and test."""

from pathlib import Path

from _run import arguments, dataset_files, run

with run(snakemake) as out:
    from rib.data.split_dataset import EarlierSplit, split_dataset

    cfg, files = snakemake.params.cfg, snakemake.input
    earlier = [
        EarlierSplit(table=Path(table), index=Path(index), same_sources=same_sources)
        for table, index, same_sources in zip(
            files.earlier, files.earlier_indexes, cfg["same_sources"], strict=True
        )
    ]
    dataset = dataset_files(snakemake, "dataset")
    split_dataset(**arguments(split_dataset, snakemake, out, files=dataset, earlier=earlier))
