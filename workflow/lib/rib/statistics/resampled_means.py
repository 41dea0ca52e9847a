"""Bootstrap means of numbers that images have, over images, datasets and runs. No torch.

Such as the share of images on which two models agree, averaged as RI averages accuracy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rib.statistics.bootstrap import object_weights
from rib.statistics.counts import ALL_INDICES, Indices, SharedObjects
from rib.statistics.ri import CountedObjects, on_other_datasets
from rib.statistics.settings import RIStatistics

REPLICATES_OF_BLOCK = 200  # at once, to bound memory


@dataclass(frozen=True)
class DatasetObjects:
    """Objects that the scored images of a dataset show."""

    object_of_image: np.ndarray  # (images,) index into `ids`
    ids: pd.Index  # (objects,) sorted; some may be equal


class ResampledObjects:
    """Objects (things shown) of a grid's datasets, and their bootstrap draws, which RI shares.

    `weights` (1 + replicates, objects) are how often each draw counts an object.

    Args:
        shared: for leak-free means, (n,) bool by target and dataset: objects whose source image the
            target has too.
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
        # (objects,) by dataset: indices among the objects of all datasets, and numbers of images.
        self.object_indices: dict[str, np.ndarray] = {}
        self.images: dict[str, np.ndarray] = {}
        for dataset, of_dataset in objects.items():
            self.object_of_image[dataset] = of_dataset.object_of_image
            self.object_indices[dataset] = unique_ids.get_indexer(of_dataset.ids)
            self.images[dataset] = np.bincount(of_dataset.object_of_image)
        self.weights = object_weights(len(unique_ids), statistics.replicates, statistics.seed)

    def counted_objects(self, target: str, statistics: RIStatistics) -> CountedObjects:
        """Objects of other datasets that count for a run on a target: {"noto": ALL_INDICES}."""
        return on_other_datasets(
            self.object_indices,
            target,
            statistics.ood_datasets,
            statistics.source_groups,
            self.shared,
        )

    def sum_by_object(self, dataset: str, values: Iterable[np.ndarray]) -> np.ndarray:
        """Sums over each object's images, which the bootstrap can weight: (k, objects).

        Args:
            values: k arrays (images of the dataset,), such as whether two models agree.
        """
        object_of_image = self.object_of_image[dataset]
        objects = len(self.images[dataset])
        sums = []
        for numbers in values:
            sums.append(np.bincount(object_of_image, weights=numbers, minlength=objects))
        return np.stack(sums)

    def resampled_means(self, dataset: str, objects: Indices, sums: np.ndarray) -> np.ndarray:
        """Means over the images of the chosen objects of a dataset: (replicates + 1, k).

        Args:
            sums: (k, objects of the dataset), over each object's images.
        """
        object_indices = self.object_indices[dataset][objects]
        images = self.images[dataset][objects]
        # One column for each of the k sums, and one for the numbers of images.
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
    # Keys are a dataset, and the target if not all objects of the dataset count. Values: the
    # objects that count, and (k, objects) sums over runs, each divided by the run's number of
    # datasets.
    counted_objects: dict[tuple[str, str | None], Indices] = field(default_factory=dict)
    summed: dict[tuple[str, str | None], np.ndarray] = field(default_factory=dict)

    def add(self, target: str, sums: Mapping[str, np.ndarray]) -> None:
        """Add a run that was fine-tuned on a target.

        Args:
            sums: by dataset, (k, objects): for each of k numbers (such as agreement), sums over
                each object's images.
        """
        self.runs += 1
        objects_of_dataset = self.resampling.counted_objects(target, self.statistics)
        for dataset, objects in objects_of_dataset.items():
            # Where all objects count, runs of all targets share one sum.
            target_of_key = None if objects is ALL_INDICES else target
            key = (dataset, target_of_key)
            self.counted_objects.setdefault(key, objects)
            share = sums[dataset] / len(objects_of_dataset)
            self.summed[key] = self.summed.get(key, 0.0) + share

    def means(self) -> np.ndarray:
        """Means of the k numbers over images, datasets and runs: (replicates + 1, k)."""
        # Each run in `summed` is already divided by its number of datasets, so adding the datasets'
        # means gives means over datasets, summed over runs.
        sum_over_runs = np.zeros(())
        for (dataset, target), summed in self.summed.items():
            objects = self.counted_objects[dataset, target]
            means_of_dataset = self.resampling.resampled_means(dataset, objects, summed)
            sum_over_runs = sum_over_runs + means_of_dataset
        return sum_over_runs / self.runs
