"""Accuracies, RI and mRI from counts. Pure functions, no torch.

RI is the mean change of accuracy over the out-of-distribution (OOD) datasets other than the target,
including evaluation-only ones; datasets in distribution do not count. With the pretrained model's
accuracy A_pre(j) on dataset j and the accuracy A_i(j) after fine-tuning on target i, all in
percentage points (arXiv 2410.21582, section 3):

    RI_i       = mean over OOD datasets j != i of A_i(j) - A_pre(j)
    ood_before = mean over targets i of the mean over j != i of A_pre(j)
    ood_after  = mean over targets i of the mean over j != i of A_i(j)
    mRI        = mean over i of RI_i = ood_after - ood_before

A target may be the training set of a dataset in distribution, such as imagenet_train: RI is then
over all OOD datasets, and counts in no mean over targets.

Several seeds are averaged, too. Training subsets are separate. A curve has one state per alpha and
a separate table. Leak-free results exclude images whose source image the target has, too.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from rib.schema.run import Run
from rib.statistics.counts import Counts
from rib.statistics.objects import ALL_INDICES, CountedObjects, Indices, SourceGroups
from rib.statistics.scored_state import ScoredState


@dataclass(frozen=True)
class TrainingSet:
    """The images that a run was trained on: TrainingSet(target="noto", size="500", seeds=(1,))."""

    target: str
    size: str
    # of the drawn subset: several for a merge over seeds, none for the whole target
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ObjectsByTraining:
    """Objects that count in the RI of a run: for example, of classes that it saw in training."""

    training_sets: Mapping[Run, TrainingSet]
    objects: Mapping[TrainingSet, Mapping[str, np.ndarray]]  # (n,) bool by dataset

    def inverted(self) -> "ObjectsByTraining":
        """The same runs with the other objects, such as unseen in place of seen classes."""
        not_counted = {}
        for training_set, objects_of_dataset in self.objects.items():
            not_counted[training_set] = {
                dataset: ~objects for dataset, objects in objects_of_dataset.items()
            }
        return ObjectsByTraining(self.training_sets, not_counted)


@dataclass(frozen=True)
class Ood:
    """Mean accuracy on the other datasets, and accuracy on the target, of a fine-tuned network."""

    before: np.ndarray  # (replicates,) percent, of the pretrained model
    after: np.ndarray  # (replicates,) percent, of the fine-tuned state
    images: int  # in the other datasets
    # (replicates,) percent; NaN if the target is not evaluated or only some objects count
    on_target_before: np.ndarray
    on_target_after: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """RI (replicates,) in percentage points."""
        return self.after - self.before


def ood_accuracies(
    counts: Counts,
    weights: np.ndarray,
    ood_datasets: Collection[str] | None = None,
    source_groups: SourceGroups = None,
    among: ObjectsByTraining | None = None,
) -> dict[ScoredState, Ood]:
    """Accuracies before and after fine-tuning, on the target and on other datasets.

    Args:
        weights: (replicates, objects), how often a bootstrap replicate counts each object.
        ood_datasets: None for all.
        source_groups: source group by dataset, for leak-free results: objects of the target do not
            count in other datasets of its source group, and objects with identical images
            (`Counts.shared`) in any dataset. A dataset without remaining objects is dropped from
            the mean.
        among: limits the objects that count; None counts all. States for which no objects remain
            are left out.

    Returns:
        Accuracies of each fine-tuned state (scored network), in the order of the counts.

    Raises:
        UserError: no objects remain in any dataset.
    """
    index_of_state = {state: i for i, state in enumerate(counts.states)}

    @cache
    def accuracies_on_all_objects(dataset: str) -> np.ndarray:
        """Accuracies (replicates, states) on a dataset, cached for runs of all targets."""
        return counts.accuracy_on(dataset, weights, ALL_INDICES, ALL_INDICES)

    ood: dict[ScoredState, Ood] = {}
    objects_of_target = _counted_objects_of_targets(counts, ood_datasets, source_groups)
    for training_set, states in _states_by_training_set(counts, among).items():
        target = training_set.target
        objects_of_dataset = objects_of_target[target]
        if among is not None:
            objects_of_dataset = _objects_that_are_among(
                objects_of_dataset, among.objects[training_set]
            )
        if not objects_of_dataset:
            continue

        # States before fine-tuning, then states after it, in the same order.
        indices = [index_of_state[state.before_fine_tuning()] for state in states]
        indices += [index_of_state[state] for state in states]
        accuracies_of_datasets = []  # (replicates, indices) per dataset
        for dataset, objects in objects_of_dataset.items():
            if objects is ALL_INDICES:
                accuracies = accuracies_on_all_objects(dataset)[:, indices]
            else:
                accuracies = counts.accuracy_on(dataset, weights, indices, objects)
            accuracies_of_datasets.append(accuracies)
        # (indices, replicates), contiguous for each state.
        means = np.ascontiguousarray(np.mean(accuracies_of_datasets, axis=0).T)
        if target in counts.datasets and among is None:
            on_target = np.ascontiguousarray(accuracies_on_all_objects(target)[:, indices].T)
        else:
            on_target = np.full_like(means, np.nan)

        images = _number_of_images(counts, objects_of_dataset)
        for number, state in enumerate(states):
            number_after = len(states) + number
            ood[state] = Ood(
                before=means[number],
                after=means[number_after],
                images=images,
                on_target_before=on_target[number],
                on_target_after=on_target[number_after],
            )
    return {state: ood[state] for state in counts.states if state in ood}


def _number_of_images(counts: Counts, objects_of_dataset: CountedObjects) -> int:
    """Images of the objects that count, over all datasets."""
    images = 0
    for dataset, objects in objects_of_dataset.items():
        images += int(counts.images[dataset][objects].sum())
    return images


def ood_parts(
    counts: Counts,
    ood_datasets: Collection[str] | None = None,
    source_groups: SourceGroups = None,
) -> dict[ScoredState, np.ndarray]:
    """Contribution of each object to the mean accuracy on the other datasets, by scored network.

    Tests flip signs of the contributions to RI.

    Args:
        ood_datasets: None for all.
        source_groups: source group by dataset, for leak-free results.

    Returns:
        (2, objects) percent for each fine-tuned state, before and after fine-tuning. Sums over
        objects are `Ood.before` and `Ood.after`; the sum of the differences is RI.
    """
    index_of_state = {state: i for i, state in enumerate(counts.states)}
    objects_of_target = _counted_objects_of_targets(counts, ood_datasets, source_groups)
    contributions = {}
    for state in counts.states:
        if state.is_pretrained:
            continue
        before_and_after = np.zeros((2, counts.objects))
        indices = [index_of_state[state.before_fine_tuning()], index_of_state[state]]
        objects_of_dataset = objects_of_target[state.run.target]
        for dataset, objects in objects_of_dataset.items():
            images = counts.images[dataset][objects].sum(dtype=np.int64)
            # Datasets count equally in the mean, and so do the images of a dataset.
            percent_of_image = 100 / (images * len(objects_of_dataset))
            object_indices = counts.object_indices[dataset][objects]
            correct = counts.correct[dataset][indices][:, objects]  # (2, objects that count)
            for contribution, correct_of_state in zip(before_and_after, correct, strict=True):
                # An object may occur several times, once for each of its classes.
                contribution += np.bincount(
                    object_indices, percent_of_image * correct_of_state, minlength=counts.objects
                )
        contributions[state] = before_and_after
    return contributions


def ri_objects(
    counts: Counts,
    targets: Collection[str],
    ood_datasets: Collection[str] | None,
    source_groups: SourceGroups,
) -> dict[str | None, int]:
    """Number of objects with an image in the RI of each target and, as None, of any target.

    An example is {"noto": 120, "twemoji": 130, None: 150}.

    Args:
        ood_datasets: None for all.
        source_groups: source group by dataset, for leak-free results.
    """
    objects_of_target = _counted_objects_of_targets(counts, ood_datasets, source_groups)
    numbers: dict[str | None, int] = {}
    indices_of_all_targets = []
    for target in targets:
        indices_of_target = [
            counts.object_indices[dataset][objects]
            for dataset, objects in objects_of_target[target].items()
        ]
        numbers[target] = len(np.unique(np.concatenate(indices_of_target)))
        indices_of_all_targets += indices_of_target
    numbers[None] = len(np.unique(np.concatenate(indices_of_all_targets)))
    return numbers


def _states_by_training_set(
    counts: Counts, among: ObjectsByTraining | None
) -> dict[TrainingSet, list[ScoredState]]:
    """Fine-tuned states by training images; without `among`, seeds of a subset share a key."""
    states: dict[TrainingSet, list[ScoredState]] = {}
    for state in counts.states:
        if state.is_pretrained:
            continue
        if among is None:
            training_set = TrainingSet(target=state.run.target, size=state.run.size, seeds=())
        else:
            training_set = among.training_sets[state.run]
        states.setdefault(training_set, []).append(state)
    return states


def _counted_objects_of_targets(
    counts: Counts, ood_datasets: Collection[str] | None, source_groups: SourceGroups
) -> dict[str, CountedObjects]:
    """{"noto": {"twemoji": ALL_INDICES}}: objects that count in the RI of each target."""
    targets = sorted({state.run.target for state in counts.states if not state.is_pretrained})
    objects_of_target = {}
    for target in targets:
        objects_of_target[target] = counts.counted(target, ood_datasets, source_groups)
    return objects_of_target


def _objects_that_are_among(
    objects_of_dataset: Mapping[str, Indices], among: Mapping[str, np.ndarray]
) -> CountedObjects:
    """Objects that are in both, by dataset, such as {"noto": [True, False]}.

    A dataset without any is dropped.
    """
    remaining: CountedObjects = {}
    for dataset, objects in objects_of_dataset.items():
        counted = among[dataset]
        if objects is not ALL_INDICES:
            counted = counted & objects
        if counted.all():
            remaining[dataset] = ALL_INDICES
        elif counted.any():
            remaining[dataset] = counted
    return remaining
