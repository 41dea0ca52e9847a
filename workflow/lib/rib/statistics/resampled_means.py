"""Bootstrap means of values of images, over images, datasets and runs as in mRI. No torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rib.statistics.bootstrap import object_weights
from rib.statistics.counts import ALL_INDICES, Indices, SharedObjects
from rib.statistics.ri import CountedObjects, on_other_datasets
from rib.statistics.settings import RIStatistics

REPLICATES_OF_BLOCK = 200  # bootstrap replicates at once, which bounds memory


@dataclass(frozen=True)
class DatasetObjects:
    """The objects that the scored images of a dataset show."""

    object_of_image: np.ndarray  # (images,) index into `ids`, in the order of the rows
    ids: pd.Index  # (objects,) sorted, of which some may be equal


class ResampledObjects:
    """Objects of a grid's datasets and their bootstrap draws, the same ones as for RI.

    Args:
        objects: by dataset.
        shared: for leak-free means, by target and dataset, see `Counts.shared`.
        statistics: number of replicates, and seed of the draws.
    """

    def __init__(
        self,
        objects: Mapping[str, DatasetObjects],
        shared: SharedObjects,
        statistics: RIStatistics,
    ):
        self.shared = shared
        ids_of_datasets = [of_dataset.ids for of_dataset in objects.values()]
        unique_ids = pd.Index(np.unique(np.concatenate(ids_of_datasets)))
        self.object_of_image: dict[str, np.ndarray] = {}
        # Of the objects of each dataset: indices among the objects of all, and numbers of images.
        self.object_indices: dict[str, np.ndarray] = {}
        self.images: dict[str, np.ndarray] = {}
        for dataset, of_dataset in objects.items():
            self.object_of_image[dataset] = of_dataset.object_of_image
            self.object_indices[dataset] = unique_ids.get_indexer(of_dataset.ids)
            self.images[dataset] = np.bincount(of_dataset.object_of_image)
        self.weights = object_weights(len(unique_ids), statistics.replicates, statistics.seed)

    def counted_objects(self, target: str, statistics: RIStatistics) -> CountedObjects:
        """Objects of other datasets that count for a run on a target; see `on_other_datasets`."""
        return on_other_datasets(
            self.object_indices,
            target,
            statistics.ood_datasets,
            statistics.source_groups,
            self.shared,
        )

    def sum_by_object(self, dataset: str, values: Iterable[np.ndarray]) -> np.ndarray:
        """Sums over each object's images: (k, objects of the dataset).

        Args:
            values: k arrays with a number of each image, (images of the dataset,).
        """
        object_of_image = self.object_of_image[dataset]
        objects = len(self.images[dataset])
        sums = []
        for numbers in values:
            sums.append(np.bincount(object_of_image, weights=numbers, minlength=objects))
        return np.stack(sums)

    def resampled_means(self, dataset: str, objects: Indices, sums: np.ndarray) -> np.ndarray:
        """Means over the images of a dataset's objects that count: (replicates + 1, k).

        Args:
            objects: those that count, see `on_other_datasets`.
            sums: (k, objects of the dataset), see `sum_by_object`.
        """
        object_indices = self.object_indices[dataset][objects]
        images = self.images[dataset][objects]
        # A column for each of the k sums, and one more for the numbers of images.
        columns = np.vstack([sums[:, objects], images]).T
        totals_of_blocks = []
        for start in range(0, len(self.weights), REPLICATES_OF_BLOCK):
            weights = self.weights[start : start + REPLICATES_OF_BLOCK, object_indices]
            totals_of_blocks.append(weights.astype(np.float64) @ columns)
        totals = np.concatenate(totals_of_blocks)  # (replicates + 1, k + 1)
        total_images = totals[:, -1:]
        with np.errstate(invalid="ignore"):  # a replicate may have no object of the dataset
            return totals[:, :-1] / total_images


@dataclass
class SummedRuns:
    """Sums over runs of one model, method and size, for means over their other datasets."""

    resampling: ResampledObjects
    statistics: RIStatistics
    runs: int = 0
    # By dataset, and by target if not all of the dataset's objects count: those that count, and the
    # sum over runs of the values of objects, each divided by the run's number of datasets.
    counted_objects: dict[tuple[str, str | None], Indices] = field(default_factory=dict)
    summed: dict[tuple[str, str | None], np.ndarray] = field(default_factory=dict)

    def add(self, target: str, sums: Mapping[str, np.ndarray]) -> None:
        """Add a run that was fine-tuned on a target.

        Args:
            sums: over each object's images, by dataset, see `ResampledObjects.sum_by_object`.
        """
        self.runs += 1
        objects_of_dataset = self.resampling.counted_objects(target, self.statistics)
        for dataset, objects in objects_of_dataset.items():
            # Runs of all targets are summed together where all objects count.
            target_of_key = None if objects is ALL_INDICES else target
            key = (dataset, target_of_key)
            self.counted_objects.setdefault(key, objects)
            share = sums[dataset] / len(objects_of_dataset)  # of the mean over datasets
            self.summed[key] = self.summed.get(key, 0.0) + share

    def means(self) -> np.ndarray:
        """Means of the k values over images, datasets and runs: (replicates + 1, k).

        The first is over the images as they are, the others over those of bootstrap replicates.
        """
        # `summed` is divided by each run's number of datasets, so the means over a dataset's images
        # add up to means over datasets, summed over runs.
        sum_over_runs = np.zeros(())
        for (dataset, target), summed in self.summed.items():
            objects = self.counted_objects[dataset, target]
            means_of_dataset = self.resampling.resampled_means(dataset, objects, summed)
            sum_over_runs = sum_over_runs + means_of_dataset
        return sum_over_runs / self.runs
