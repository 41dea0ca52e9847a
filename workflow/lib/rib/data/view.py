"""The part of a prepared dataset that a job uses: one split, within the budget, without the pretraining proxy."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.config.run import ALL
from rib.data.identity import identical_to, read_identities
from rib.data.prepared import PreparedDataset
from rib.data.settings import DatasetView
from rib.data.splits import TRAIN, read_split
from rib.data.subsets import first_images, hashed, rank_within, subset


@dataclass(frozen=True)
class DatasetFiles:
    """Files of one prepared dataset."""

    name: str
    folder: Path  # output of the prepare job
    # folder of the dataset with the pretraining proxy, if this dataset shares its sources
    proxy: Path | None = None
    # output of the split_dataset job (protocol held_out); None for all images
    split: Path | None = None
    # whether images are opened; False for jobs that need the index and the classes only
    pixels: bool = True
    workers: int = 1  # threads that decode encoded photos


def load_dataset(files: DatasetFiles, view: DatasetView, part: str) -> PreparedDataset:
    """One split of a dataset, `train`, `select` or `test`; the whole dataset under protocol `paper`.

    Raises:
        UserError: no image is left, none belongs to the pretraining proxy, or the train split lacks a class.
    """
    dataset = load_whole(files, view)
    return dataset if files.split is None else _split(dataset, part, files.split)


def load_whole(files: DatasetFiles, view: DatasetView) -> PreparedDataset:
    """All images of a dataset within the budget, without those of the pretraining proxy.

    Raises:
        UserError: no image is left, or none belongs to the pretraining proxy.
    """
    dataset = PreparedDataset.open(
        files.folder, files.name, view.geometry, files.workers, files.pixels
    )
    if files.proxy:
        dataset = _without_proxy(dataset, files.folder, files.proxy, view.images_per_class)
    return dataset if view.budget == ALL else first_images(dataset, view.budget)


def load_proxy(files: DatasetFiles, view: DatasetView) -> PreparedDataset:
    """The pretraining proxy; under protocol held_out, its train split, since other datasets may share its sources."""
    if view.images_per_class is None:
        dataset = subset(load_whole(files, view), view.pretraining_size, "pretrain.size")
        return dataset if files.split is None else _split(dataset, TRAIN, files.split)
    dataset = PreparedDataset.open(files.folder, files.name, view.geometry, files.workers)
    chosen = _proxy_sources(files.folder / "index.parquet", view.images_per_class)
    return _where(dataset, lambda source: source in chosen)


def _proxy_sources(index: Path, images_per_class: int) -> frozenset[str]:
    """Source images of the pretraining proxy: those with the lowest hashes in each class."""
    pairs = (
        pq.read_table(index, columns=["label", "source_id"])
        .group_by(["label", "source_id"])
        .aggregate([])
    )
    hashes = np.array([hashed("reference", source) for source in pairs["source_id"].to_pylist()])
    chosen = rank_within(pairs["label"].to_numpy(), hashes) < images_per_class
    return frozenset(pairs["source_id"].filter(chosen).to_pylist())


def _without_proxy(
    dataset: PreparedDataset, folder: Path, proxy: Path, images_per_class: int
) -> PreparedDataset:
    """The images of a whole dataset that the pretraining proxy lacks, as source images and as identical photos.

    Raises:
        UserError: no image has the id of a source image of the proxy, or none is left.
    """
    index = proxy / "index.parquet"
    proxy_sources = _proxy_sources(index, images_per_class)
    declared, names = dataset.declared_sources
    made_from_proxy = np.array([name in proxy_sources for name in names], bool)[declared]
    if not made_from_proxy.any():
        raise UserError(
            f"{dataset.name}: none of its images was made from one of the pretraining proxy, although its entry's "
            "source_group says so; its file names don't match the source images, so correct its layout."
        )
    proxy_ids = pq.read_table(index, columns=["source_id"])["source_id"].combine_chunks()
    in_proxy = pc.is_in(proxy_ids, value_set=pa.array(sorted(proxy_sources), pa.string()))
    proxy_photos = read_identities(index).filter(in_proxy)
    identical = identical_to(read_identities(folder / "index.parquet"), proxy_photos)
    sources, _ = dataset.sources
    excluded = np.isin(sources, sources[made_from_proxy | identical])
    if excluded.all():
        raise UserError(
            f"{dataset.name}: all its images belong to the pretraining proxy; lower reference.images_per_class in "
            "the family's entry."
        )
    return dataset.take(np.flatnonzero(~excluded))


def _where(dataset: PreparedDataset, holds: Callable[[str], bool]) -> PreparedDataset:
    """The images whose source id satisfies a predicate."""
    places, sources = dataset.declared_sources
    return dataset.take(
        np.flatnonzero(np.array([holds(source) for source in sources], bool)[places])
    )


def _split(dataset: PreparedDataset, part: str, split: Path) -> PreparedDataset:
    """One split of a dataset."""
    parts = read_split(split)
    found = _where(dataset, lambda source: parts[source] == part)
    lost = set(dataset.labels) - set(found.labels)
    if not len(found.labels) or (part == TRAIN and lost):
        what = f"class '{dataset.space.names[min(lost)]}' has" if len(found.labels) else "it has"
        raise UserError(
            f"protocol held_out: {dataset.name}: {what} no image in the {part} split, since there are too few images "
            "per class; use protocol paper for this family, or change split or budget in config.yaml."
        )
    return found
