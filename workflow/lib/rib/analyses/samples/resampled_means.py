"""Bootstrap means of numbers that images have, over images, datasets and runs. No torch.

Such as the share of images on which two models agree, averaged as RI averages accuracy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from rib.statistics.bootstrap import object_weights
from rib.statistics.objects import (
    ALL_INDICES,
    CountedObjects,
    Indices,
    Objects,
    SharedObjects,
    join_ids,
)
from rib.statistics.statistics_settings import RIStatistics


@dataclass(frozen=True)
class DatasetObjects:
    """Objects that the scored images of a dataset show."""

    object_of_image: np.ndarray  # (images,) index into `ids`
    ids: pd.Index  # (objects,) sorted; some may be equal


@dataclass(frozen=True, kw_only=True)
class ResampledObjects(Objects):
    """Objects (things shown) of a grid's datasets, and their bootstrap draws, which RI shares."""

    object_of_image: dict[str, np.ndarray]  # (images,) by dataset: index into its objects
    statistics: RIStatistics

    @classmethod
    def of(
        cls,
        objects: Mapping[str, DatasetObjects],
        shared: SharedObjects,
        statistics: RIStatistics,
    ) -> "ResampledObjects":
        """Objects of all datasets, by dataset.

        Args:
            shared: for leak-free means, (n,) bool by target and dataset: objects whose source image
                the target has too.
        """
        number, indices = join_ids({name: of_dataset.ids for name, of_dataset in objects.items()})
        object_of_image = {
            dataset: of_dataset.object_of_image for dataset, of_dataset in objects.items()
        }
        return cls(
            objects=number,
            object_indices=indices,
            images={dataset: np.bincount(numbers) for dataset, numbers in object_of_image.items()},
            shared=shared,
            object_of_image=object_of_image,
            statistics=statistics,
        )

    @cached_property
    def weights(self) -> np.ndarray:
        """(1 + replicates, objects), how often each draw counts an object."""
        return object_weights(self.objects, self.statistics.replicates, self.statistics.seed)

    def counted_for(self, target: str) -> CountedObjects:
        """Objects of other datasets that count for a run on a target: {"noto": ALL_INDICES}."""
        return self.counted(target, self.statistics.ood_datasets, self.statistics.source_groups)

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


@dataclass
class SummedRuns:
    """Sums over runs of one model, method and size, for means over their other datasets."""

    resampling: ResampledObjects
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
        objects_of_dataset = self.resampling.counted_for(target)
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
            means_of_dataset = self.resampling.resampled_means(
                dataset, self.resampling.weights, summed, objects
            )
            sum_over_runs = sum_over_runs + means_of_dataset
        return sum_over_runs / self.runs
