"""Which images show classes that the training images of a run show, too: seen classes.

Label spaces differ, so classes are compared by their network outputs: a class is seen if it shares
an output with the class of a training image.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from rib.base.files import read_json
from rib.catalog.label_space import LabelSpace
from rib.data.data_settings import DatasetView
from rib.data.dataset import PreparedDataset
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, load_dataset
from rib.schema.run import ALL, Run, parent_of
from rib.statistics.counts import Counts
from rib.statistics.ri import ObjectsByTraining, TrainingSet


def label_spaces(datasets: Iterable[DatasetFiles]) -> dict[str, LabelSpace]:
    """Label space (classes and their network outputs) of each prepared dataset, by its name."""
    return {
        dataset.name: LabelSpace.from_json(read_json(dataset.folder / "classes.json"))
        for dataset in datasets
    }


def training_set_of(run: Run, checkpoints: Iterable[str]) -> TrainingSet:
    """The images that a run was trained on: TrainingSet(target="noto", size="500", seeds=(1,)).

    Args:
        checkpoints: keys of the checkpoints that make up its weights, such as ["ft"] or, for a
            merge over seeds, ["ft, seed 1", "ft, seed 2"].
    """
    if run.size == ALL:
        return TrainingSet(target=run.target, size=run.size, seeds=())
    # The key "ft" names no seed: the checkpoint has the run's.
    seeds = {int(parent_of(key).get("seed", run.seed)) for key in checkpoints}
    if not seeds:
        seeds = {run.seed}
    return TrainingSet(target=run.target, size=run.size, seeds=tuple(sorted(seeds)))


def coverage(
    counts: Counts,
    datasets: Iterable[DatasetFiles],
    view: DatasetView,
    checkpoints: Mapping[Run, Iterable[str]],
) -> ObjectsByTraining:
    """Objects of each dataset whose class the training images of a run show: seen classes.

    Classes of two datasets are the same if they share a network output, since datasets may number
    their classes differently.

    Args:
        datasets: the counted datasets and the targets.
        view: how many images of each dataset are used.
        checkpoints: by run, keys of the checkpoints that make up its weights, such as ["ft"].
    """
    files = {dataset.name: replace(dataset, pixels=False) for dataset in datasets}
    spaces = label_spaces(files.values())

    @cache
    def training_images(target: str) -> PreparedDataset:
        """Training images of a target, read once for all runs."""
        return load_dataset(files[target], view, TRAIN)

    training_sets = {
        state.run: training_set_of(state.run, checkpoints[state.run])
        for state in counts.states
        if not state.is_pretrained
    }
    seen_of_training_sets = {}
    for training_set in set(training_sets.values()):
        labels = _labels_in(training_set, training_images(training_set.target))
        seen_outputs = _outputs_of(labels, spaces[training_set.target])
        seen_objects = {}
        for dataset in counts.datasets:
            class_is_seen = np.array(
                [not seen_outputs.isdisjoint(outputs) for outputs in spaces[dataset].indices]
            )
            seen_objects[dataset] = class_is_seen[counts.labels[dataset]]
        seen_of_training_sets[training_set] = seen_objects
    return ObjectsByTraining(training_sets, seen_of_training_sets)


def _outputs_of(labels: Iterable[int], space: LabelSpace) -> set[int]:
    """Network outputs of these classes, by which classes of all datasets can be compared."""
    outputs: set[int] = set()
    for label in labels:
        outputs.update(space.indices[label])
    return outputs


def _labels_in(training_set: TrainingSet, images_of_target: PreparedDataset) -> set[int]:
    """Labels of the training images, such as {0, 3}; a merge over seeds has all seeds' subsets."""
    if training_set.size == ALL:
        return set(images_of_target.labels)
    labels: set[int] = set()
    for seed in training_set.seeds:
        labels.update(subset(images_of_target, training_set.size, seed).labels)
    return labels
