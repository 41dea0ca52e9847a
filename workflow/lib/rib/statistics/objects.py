"""Objects: what images show, which count for a target, and means over their images. No torch.

The bootstrap resamples objects, since images that show the same thing are not independent, such as
one emoji in the styles of several vendors. Equal ids are one object, even in different datasets.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rib.base.errors import UserError
from rib.statistics.bootstrap import weighted_means

Indices = slice | Sequence[int] | np.ndarray
ALL_INDICES = slice(None)
# By target and dataset, as in `Objects.shared`: {("fluent_flat", "fluent_3d"): [True, False]}.
SharedObjects = Mapping[tuple[str, str], np.ndarray]
# For leak-free results, group of datasets made from the same images: {"fluent_flat": "fluent",
# "fluent_3d": "fluent"}.
SourceGroups = Mapping[str, str] | None
# Datasets in the RI of a target, and which of their objects count: `ALL_INDICES` or (n,) bool.
CountedObjects = dict[str, Indices]


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Objects that the scored images of a grid's datasets show.

    If the images of an object are of several classes, it occurs once for each class and, in
    leak-free results, once for each source image.
    """

    objects: int  # over all datasets
    # (n,) by dataset: which of these objects the dataset has.
    object_indices: dict[str, np.ndarray]
    # (n,) by dataset: images of each object.
    images: dict[str, np.ndarray]
    # For leak-free results, (n,) bool by target and dataset: objects whose source image the target
    # has too, by its id or because images are identical. Pairs without such objects are missing.
    shared: SharedObjects = field(default_factory=dict)

    def counted(
        self, target: str, ood_datasets: Collection[str] | None, source_groups: SourceGroups
    ) -> CountedObjects:
        """Datasets in the RI of a target, and which of their objects count.

        Args:
            ood_datasets: None for all.
            source_groups: source group by dataset, for leak-free results: objects of the target do
                not count in other datasets of its source group, and objects with identical images
                (`shared`) in any dataset. A dataset without remaining objects is left out.

        Returns:
            By dataset, `ALL_INDICES` if all of its objects count, else (n,) bool, such as {"noto":
            ALL_INDICES, "twemoji": [True, False]}.

        Raises:
            UserError: no objects remain in any dataset.
        """
        counted: CountedObjects = {}
        for dataset, indices in self.object_indices.items():
            is_in_distribution = ood_datasets is not None and dataset not in ood_datasets
            if dataset == target or is_in_distribution:
                continue
            leaking = np.zeros(len(indices), bool)
            if source_groups is not None:
                leaking = self._leaking(target, dataset, source_groups)
            if leaking.all():
                continue  # no object remains
            if leaking.any():
                counted[dataset] = ~leaking
            else:
                counted[dataset] = ALL_INDICES
        if not counted:
            raise UserError(
                f"leak_free: all datasets were made from the same images as {target}, so none is "
                "left to evaluate on; set leak_free to false or evaluate on more datasets."
            )
        return counted

    def _leaking(self, target: str, dataset: str, source_groups: Mapping[str, str]) -> np.ndarray:
        """(n,) bool: objects of the dataset with an image whose source image the target has."""
        indices = self.object_indices[dataset]
        leaking = self.shared.get((target, dataset), np.zeros(len(indices), bool))
        if target not in source_groups or target not in self.object_indices:
            return leaking
        is_of_same_group = source_groups[target] == source_groups.get(dataset)
        if is_of_same_group:
            is_object_of_target = np.isin(indices, self.object_indices[target])
            leaking = leaking | is_object_of_target
        return leaking

    def resampled_means(
        self, dataset: str, weights: np.ndarray, sums: np.ndarray, objects: Indices
    ) -> np.ndarray:
        """Means over the images of the chosen objects of a dataset: (replicates, k).

        Args:
            weights: (replicates, objects of all datasets), how often a bootstrap replicate counts
                each object. A replicate without any of the chosen objects has NaN.
            sums: (k, objects of the dataset), such as right answers to each object's images.
            objects: the chosen ones, as indices into the dataset's arrays.
        """
        return weighted_means(
            weights,
            self.object_indices[dataset][objects],
            sums=sums[:, objects],
            images=self.images[dataset][objects],
        )


def join_ids(ids: Mapping[str, pd.Index]) -> tuple[int, dict[str, np.ndarray]]:
    """Number of objects over all datasets, and which of them each dataset has.

    {"noto": ["a", "b"], "twemoji": ["b", "b", "c"]} gives 3 and {"noto": [0, 1], "twemoji": [1, 1,
    2]}.

    Args:
        ids: object ids by dataset; equal ids are one object.
    """
    all_ids = np.concatenate([of_dataset.to_numpy(object) for of_dataset in ids.values()])
    unique_ids = pd.Index(np.unique(all_ids))
    indices = {dataset: unique_ids.get_indexer(of_dataset) for dataset, of_dataset in ids.items()}
    return len(unique_ids), indices
