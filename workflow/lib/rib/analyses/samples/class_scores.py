"""Macro F1 and accuracy on the worst group, which are not means over images. No torch.

Macro F1 is the mean over classes of 2 TP / (2 TP + FP + FN), in percent, over the classes that have
images, as in WILDS (Koh et al. 2021, arXiv 2012.07421). A prediction that is another right answer
of its class (`also` of the label space) counts as the label.

Accuracy on the worst group is the lowest accuracy, in percent, over groups of a dataset's images; a
column of the index has the groups (Sagawa et al. 2020, arXiv 1911.08731).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from rib.analyses.samples.resampled_means import ResampledObjects
from rib.statistics.bootstrap import blocks_of_weights
from rib.statistics.objects import Indices
from rib.statistics.sample_rows import is_right

ACCURACY = "accuracy"
MACRO_F1 = "macro_f1"
WORST_GROUP = "worst_group"
CLASS_SCORES = [
    f"{score}_{when}" for score in (MACRO_F1, WORST_GROUP) for when in ("before", "after", "change")
]


@dataclass(frozen=True)
class ImageCategories:
    """Object shown, class and group of each scored image of a dataset, in the order of the rows."""

    object_of_image: np.ndarray  # (images,)
    objects: int
    label_of_image: np.ndarray  # (images,)
    classes: int
    group_of_image: np.ndarray | None  # (images,); None if the dataset has no groups

    def tally(self, rows: pd.DataFrame) -> "ImageTallies":
        """Count a run's predictions by object and class, and by object and group.

        Args:
            rows: evaluation rows of the run (prediction, rank), in the order of the images.
        """
        right = is_right(rows)
        # Another right answer of the class counts as its label.
        prediction = np.where(right, self.label_of_image, rows["prediction"].to_numpy())
        images_of_groups = None
        right_of_groups = None
        if self.group_of_image is not None:
            groups = int(self.group_of_image.max()) + 1
            images_of_groups = self._count(self.group_of_image, groups)
            right_of_groups = self._count(self.group_of_image, groups, right)
        return ImageTallies(
            labels=self._count(self.label_of_image, self.classes),
            predictions=self._count(prediction, self.classes),
            right=self._count(self.label_of_image, self.classes, right),
            images_of_groups=images_of_groups,
            right_of_groups=right_of_groups,
        )

    def _count(
        self, category_of_image: np.ndarray, categories: int, chosen: np.ndarray | None = None
    ) -> csr_matrix:
        """Numbers of images, (objects, categories); `chosen` (images,) bool limits them."""
        object_of_image = self.object_of_image
        if chosen is not None:
            object_of_image = object_of_image[chosen]
            category_of_image = category_of_image[chosen]
        ones = np.ones(len(object_of_image))
        shape = (self.objects, categories)
        return csr_matrix((ones, (object_of_image, category_of_image)), shape=shape)


@dataclass(frozen=True)
class ImageTallies:
    """Numbers of images of a dataset for one run, by object and class or by object and group.

    The bootstrap weights objects, so scores of its replicates need no single images.
    """

    labels: csr_matrix  # (objects, classes) images of each class
    predictions: csr_matrix  # (objects, classes) images predicted as each class
    right: csr_matrix  # (objects, classes) images of each class predicted right
    images_of_groups: csr_matrix | None  # (objects, groups)
    right_of_groups: csr_matrix | None  # (objects, groups)

    def scores(self, weights: np.ndarray, objects: Indices) -> dict[str, np.ndarray]:
        """Accuracy, macro F1 and, with groups, accuracy on the worst group, in percent.

        Args:
            weights: (replicates, chosen objects), how often each object counts.
            objects: which of the dataset's objects are chosen.

        Returns:
            (replicates,) by score, such as {"accuracy": [81.5, 80.9], "macro_f1": [79.2, 78.8]};
            NaN for a replicate without images.
        """
        labels = _totals(self.labels, weights, objects)
        right = _totals(self.right, weights, objects)
        predictions = _totals(self.predictions, weights, objects)
        with np.errstate(invalid="ignore"):
            f1_of_classes = 200 * right / (labels + predictions)
            accuracy = 100 * right.sum(axis=1) / labels.sum(axis=1)
        f1_of_classes[labels == 0] = np.nan
        scores = {ACCURACY: accuracy, MACRO_F1: _mean_of_known(f1_of_classes)}
        if self.images_of_groups is not None and self.right_of_groups is not None:
            images_of_groups = _totals(self.images_of_groups, weights, objects)
            right_of_groups = _totals(self.right_of_groups, weights, objects)
            with np.errstate(invalid="ignore"):
                accuracy_of_groups = 100 * right_of_groups / images_of_groups
            # `fmin` ignores NaN, which a group without images has.
            scores[WORST_GROUP] = np.fmin.reduce(accuracy_of_groups, axis=1)
        return scores

    def scores_of_all(self) -> dict[str, float]:
        """Scores on all images, such as {"accuracy": 81.5, "macro_f1": 79.2, "worst_group": 60}."""
        every_object_once = np.ones((1, self.labels.shape[0]))
        scores = self.scores(every_object_once, slice(None))
        return {name: float(of_replicates[0]) for name, of_replicates in scores.items()}


def _totals(tallies: csr_matrix, weights: np.ndarray, objects: Indices) -> np.ndarray:
    """Images of each class or group, (replicates, categories); objects count as often as drawn."""
    totals: np.ndarray = weights @ tallies[objects]
    return totals


def _mean_of_known(scores: np.ndarray) -> np.ndarray:
    """Like nanmean over columns, but NaN without a warning for a row that is all NaN."""
    is_known = ~np.isnan(scores)
    sums = np.where(is_known, scores, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = sums / is_known.sum(axis=1)
    return means


def compared_class_scores(before: ImageTallies, after: ImageTallies) -> dict[str, float]:
    """Macro F1 and accuracy on the worst group before and after fine-tuning, and their changes.

    An example is {"macro_f1_before": 79.2, "macro_f1_after": 75.0, "macro_f1_change": -4.2}, in
    percent, for a dataset without groups.
    """
    scores_before = before.scores_of_all()
    scores_after = after.scores_of_all()
    columns = {}
    for name in (MACRO_F1, WORST_GROUP):
        if name in scores_before:
            columns[f"{name}_before"] = scores_before[name]
            columns[f"{name}_after"] = scores_after[name]
            columns[f"{name}_change"] = scores_after[name] - scores_before[name]
    return columns


@dataclass
class SummedClassScores:
    """Means over runs of macro F1 and other scores, each over the datasets other than the target.

    Runs are added one at a time; only sums are kept.

    Args:
        replicates: number of bootstrap replicates beside the observed scores; 0 without intervals.
    """

    resampling: ResampledObjects
    replicates: int
    runs: int = 0
    # (2, 1 + replicates) by score: sums over runs, before and after fine-tuning.
    summed: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self,
        target: str,
        before: Mapping[str, ImageTallies],
        after: Mapping[str, ImageTallies],
    ) -> None:
        """Add a run that was fine-tuned on a target.

        Args:
            before, after: tallies (numbers of images by object and class) by dataset, of the
                pretrained and of the fine-tuned model.
        """
        self.runs += 1
        objects_of_dataset = self.resampling.counted_for(target)
        scores_of_datasets: dict[str, list[np.ndarray]] = {}
        for dataset, objects in objects_of_dataset.items():
            scores_before = self._scores(dataset, objects, before[dataset])
            scores_after = self._scores(dataset, objects, after[dataset])
            for name, of_replicates in scores_before.items():
                both = np.stack([of_replicates, scores_after[name]])
                scores_of_datasets.setdefault(name, []).append(both)
        for name, of_datasets in scores_of_datasets.items():
            # Only datasets with groups have a score of the worst group.
            self.summed[name] = self.summed.get(name, 0.0) + np.mean(of_datasets, axis=0)

    def _scores(
        self, dataset: str, objects: Indices, tallies: ImageTallies
    ) -> dict[str, np.ndarray]:
        """{"macro_f1": [79.2, 78.8, ...]}: (1 + replicates,), the observed score first."""
        weights = self.resampling.weights[: self.replicates + 1]
        object_indices = self.resampling.object_indices[dataset][objects]
        blocks: dict[str, list[np.ndarray]] = {}
        for weights_of_block in blocks_of_weights(weights, object_indices):
            for name, of_block in tallies.scores(weights_of_block, objects).items():
                blocks.setdefault(name, []).append(of_block)
        return {name: np.concatenate(of_blocks) for name, of_blocks in blocks.items()}

    def means(self) -> dict[str, np.ndarray]:
        """Means over runs and datasets by score, (3, 1 + replicates): before, after and change.

        A score is missing if no dataset of any run has it, such as `worst_group` without groups.
        """
        means = {}
        for name, summed in self.summed.items():
            before, after = summed / self.runs
            means[name] = np.stack([before, after, after - before])
        return means
