"""The images of a prepared dataset that a job uses: one split, within the budget.

Images of the *pretraining proxy* are left out. The proxy stands in for the images that a model was
pretrained on: a separate dataset, or a few source images of each class of an evaluated dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.data.data_settings import DatasetView
from rib.data.dataset import PreparedDataset, read_slices
from rib.data.identity import identical_to, read_identities
from rib.data.splits import TRAIN, read_split
from rib.data.subsets import balanced_over_slices, hashed, rank_within, subset
from rib.schema.budget import Limit, images_within
from rib.schema.layout import Layout


@dataclass(frozen=True)
class DatasetFiles:
    """Files of one prepared dataset."""

    name: str
    folder: Path  # output folder of the prepare job
    # Folder of the dataset that contains the pretraining proxy, whose images are left out; None to
    # leave out nothing.
    proxy: Path | None = None
    # Output of the split_dataset job (protocol held_out); None for all images.
    split: Path | None = None
    # Whether images are opened; False for jobs that only need the index and classes.
    pixels: bool = True
    decode_workers: int = 1  # threads that decode encoded images


def evaluated_datasets(
    *,
    indexes: Sequence[Path],
    proxy: Path | None,
    splits: Sequence[Path],
    excludes_proxy: Sequence[str],
    split: Sequence[str],
    decode_workers: int = 1,
) -> list[DatasetFiles]:
    """Files of the datasets that a job reads.

    Args:
        indexes: of the prepared datasets, .../prepare/<dataset>/<geometry>/index.parquet.
        proxy: folder of the prepared dataset that contains the pretraining proxy.
        splits: one file per name in `split`.
        excludes_proxy: names of datasets whose images of the proxy are left out.
        split: names of datasets that are split.
        decode_workers: threads that decode encoded images.
    """
    split_of_dataset = dict(zip(split, splits, strict=True))
    datasets = []
    for index in indexes:
        name = Layout.dataset_of(index)
        dataset = DatasetFiles(
            name=name,
            folder=index.parent,
            proxy=proxy if name in excludes_proxy else None,
            split=split_of_dataset.get(name),
            decode_workers=decode_workers,
        )
        datasets.append(dataset)
    return datasets


def load_dataset(files: DatasetFiles, view: DatasetView, split: str) -> PreparedDataset:
    """One split of a dataset, or the whole dataset if it is not split (protocol `paper`).

    Args:
        split: `train`, `select` or `test`.

    Raises:
        UserError: no image is left, none belongs to the pretraining proxy, or the train split lacks
            a class.
    """
    dataset = load_whole(files, view)
    if files.split is None:
        return dataset
    return _images_of_split(dataset, split, files.split, view)


def load_whole(files: DatasetFiles, view: DatasetView) -> PreparedDataset:
    """All splits of a dataset, within the budget and without the pretraining proxy.

    Raises:
        UserError: no image is left, or none belongs to the pretraining proxy.
    """
    dataset = PreparedDataset.open(
        files.folder, files.name, view.geometry_of(files.name), files.decode_workers, files.pixels
    )
    if files.proxy:
        assert view.images_per_class is not None  # only a proxy within a dataset is left out
        dataset = _without_proxy(dataset, files.folder, files.proxy, view.images_per_class)
    return _within_budget(dataset, files.folder / "index.parquet", view.limit_of(files.name))


def _within_budget(dataset: PreparedDataset, index: Path, limit: Limit) -> PreparedDataset:
    """At most `limit` images: 5000, a share such as 0.1 of the given ones, or `all`."""
    number_of_images = images_within(limit, len(dataset.labels))
    if number_of_images == len(dataset.labels):
        return dataset
    slices = read_slices(index)
    if dataset.rows is not None:
        slices = slices[dataset.rows]
    rows = balanced_over_slices(dataset, slices, number_of_images)
    return dataset.take(np.sort(rows))


def load_proxy(files: DatasetFiles, view: DatasetView) -> PreparedDataset:
    """The images of the pretraining proxy, which stand in for a model's pretraining images.

    Under protocol held_out, a proxy that is a separate dataset is reduced to its train split,
    because other datasets may share its source images.

    Raises:
        UserError: the proxy would be all images of the dataset that contains it.
    """
    if view.images_per_class is None:
        return _load_separate_proxy(files, view)
    geometry = view.geometry_of(files.name)
    dataset = PreparedDataset.open(files.folder, files.name, geometry, files.decode_workers)
    proxy_sources = _proxy_sources(files.folder / "index.parquet", view.images_per_class)
    return dataset.take(np.flatnonzero(_has_source(dataset, proxy_sources)))


def _load_separate_proxy(files: DatasetFiles, view: DatasetView) -> PreparedDataset:
    """The proxy of a family whose pretraining data are a dataset of their own.

    A model that was pretrained on a subset has that subset. Under protocol held_out the images
    that others are tested on are left out.
    """
    whole_dataset = load_whole(files, view)
    setting = "pretrain.size"  # for messages
    dataset = subset(whole_dataset, view.pretraining_size, view.pretraining_seed, setting)
    if files.split is None:
        return dataset
    return _images_of_split(dataset, TRAIN, files.split, view)


def _has_source(dataset: PreparedDataset, source_ids: frozenset[str]) -> np.ndarray:
    """Mask of the images with one of these source ids: (n,) bool."""
    source_of_image, sources = dataset.declared_sources
    source_is_given = np.array([source in source_ids for source in sources], bool)
    image_has_given_source: np.ndarray = source_is_given[source_of_image]
    return image_has_given_source


def _proxy_sources(index: Path, images_per_class: int) -> frozenset[str]:
    """Source ids of the proxy: in each class the lowest hashes, for all jobs to choose the same."""
    images = pq.read_table(index, columns=["label", "source_id"])
    sources = images.group_by(["label", "source_id"]).aggregate([])  # unique pairs
    source_ids = sources["source_id"].to_pylist()
    hashes = hashed("reference", source_ids)
    rank_in_class = rank_within(sources["label"].to_numpy(), hashes)
    largest_class = rank_in_class.max() + 1
    # Heads are fitted on the proxy before any training, so this error comes early.
    if images_per_class >= largest_class:
        raise UserError(
            f"reference.images_per_class is {images_per_class}, but no class of the dataset has "
            f"more than {largest_class} images, so that none is left to evaluate; lower it in the "
            "family's file."
        )
    proxy_sources = sources["source_id"].filter(rank_in_class < images_per_class)
    return frozenset(proxy_sources.to_pylist())


def _without_proxy(
    dataset: PreparedDataset, folder: Path, proxy: Path, images_per_class: int
) -> PreparedDataset:
    """The dataset without images made from the proxy's source images, and identical images."""
    proxy_index = proxy / "index.parquet"
    proxy_sources = _proxy_sources(proxy_index, images_per_class)
    is_made_from_proxy = _has_source(dataset, proxy_sources)
    if not is_made_from_proxy.any():
        raise UserError(
            f"{dataset.name}: none of its images was made from one of the pretraining proxy, "
            "although its entry's source_group says so; its file names don't match the source "
            "images, so correct its layout."
        )
    proxy_identities = _identities_of_sources(proxy_index, proxy_sources)
    identities = read_identities(folder / "index.parquet")
    is_in_proxy = is_made_from_proxy | identical_to(identities, proxy_identities)
    # All images of the same source image go together.
    source_of_image, _ = dataset.sources
    is_excluded = np.isin(source_of_image, source_of_image[is_in_proxy])
    if is_excluded.all():
        raise UserError(
            f"{dataset.name}: all its images belong to the pretraining proxy; lower "
            "reference.images_per_class in the family's entry."
        )
    return dataset.take(np.flatnonzero(~is_excluded))


def _identities_of_sources(index: Path, sources: frozenset[str]) -> pa.Array:
    """Identities (hashes of pixels, text) of all images with these source ids, to find copies."""
    source_ids = pq.read_table(index, columns=["source_id"])["source_id"].combine_chunks()
    has_source = pc.is_in(source_ids, value_set=pa.array(sorted(sources), pa.string()))
    return read_identities(index).filter(has_source)


def _images_of_split(
    dataset: PreparedDataset, split: str, table: Path, view: DatasetView
) -> PreparedDataset:
    """Images with a split in `table`; a UserError if there are none, or train lacks a class.

    Train may lack classes if objects are not divided.
    """
    limit = view.limit_of(dataset.name)
    split_of_source = read_split(table)
    source_of_image, sources = dataset.declared_sources
    is_source_in_split = np.array([split_of_source[source] == split for source in sources], bool)
    images = dataset.take(np.flatnonzero(is_source_in_split[source_of_image]))
    classes_without_images = set(dataset.labels) - set(images.labels)
    if len(images.labels) == 0:
        raise _too_few_images(dataset, split, limit, "it has")
    if split == TRAIN and view.split_by == "source" and classes_without_images:
        class_name = dataset.space.names[min(classes_without_images)]
        raise _too_few_images(dataset, split, limit, f"class '{class_name}' has")
    return images


def _too_few_images(dataset: PreparedDataset, split: str, limit: Limit, who_has: str) -> UserError:
    """An error for the caller to raise; `who_has` is `it has`, or `class 'fox' has`."""
    return UserError(
        f"protocol held_out: {dataset.name}: {who_has} no image in the {split} split, since "
        f"{len(dataset.labels)} images are too few (budget.max_images_per_dataset: {limit}); raise "
        "the budget, change split, or use protocol paper for this family."
    )
