"""What scripts that write tables build from inputs of their rules.

It is imported after the job has begun, as it imports pandas.
"""

from collections.abc import Sequence

from _inputs import folder_of, paths
from rib.data.view import DatasetFiles
from rib.statistics.counts import RowFiles


def row_files(files, methods: Sequence[str]) -> RowFiles:
    """Rows of methods, from inputs of a job that has lists of `rows` and `indexes`."""
    return RowFiles(rows=paths(files.rows), indexes=paths(files.indexes), methods=methods)


def dataset_group(
    files, excludes_proxy: Sequence[str], split: Sequence[str], decode_workers: int
) -> list[DatasetFiles]:
    """Datasets of a job, with the pretraining proxy for those that exclude it, and splits.

    The proxy is images that stand in for the pretraining data.

    Args:
        files: inputs of the job, of which `indexes` are in the folders of the prepared datasets,
            `proxy` is the manifest of the proxy, and `splits` are in the order of `split`.
        excludes_proxy: names of datasets of which the images of the proxy are left out.
        split: names of datasets that are split.
        decode_workers: threads that decode encoded photos.
    """
    proxies = {name: folder_of(files.proxy) for name in excludes_proxy}
    splits = dict(zip(split, paths(files.splits), strict=True))
    datasets = []
    for index in paths(files.indexes):
        name = index.parts[-3]  # .../prepare/<dataset>/<geometry>/index.parquet
        dataset = DatasetFiles(
            name=name,
            folder=index.parent,
            proxy=proxies.get(name),
            split=splits.get(name),
            decode_workers=decode_workers,
        )
        datasets.append(dataset)
    return datasets
