"""Which images are of classes that a run's training images show (seen).

Label spaces differ, so classes are compared by their network outputs: a class is seen if it shares
one with the class of a training image.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np

from rib.analysis.counts import Counts
from rib.base.files import read_json
from rib.config.label_space import LabelSpace
from rib.data.prepared import PreparedDataset
from rib.data.settings import DatasetView
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, load_dataset

# By target and size, and dataset: which of its objects are of a seen class, (n,) bool.
Coverage = dict[tuple[str, str], dict[str, np.ndarray]]


def label_spaces(datasets: Iterable[DatasetFiles]) -> dict[str, LabelSpace]:
    """Label spaces of prepared datasets by name."""
    return {
        dataset.name: LabelSpace.from_json(read_json(dataset.folder / "classes.json"))
        for dataset in datasets
    }


def coverage(counts: Counts, datasets: Iterable[DatasetFiles], view: DatasetView) -> Coverage:
    """Which objects of each dataset are of a class that the training images show.

    Args:
        datasets: those that are counted, and targets.
    """
    files = {dataset.name: replace(dataset, pixels=False) for dataset in datasets}
    spaces = label_spaces(files.values())

    @cache
    def training_images(target: str) -> PreparedDataset:
        return load_dataset(files[target], view, TRAIN)

    seen: Coverage = {}
    targets_and_sizes = {
        (state.run.target, state.run.size) for state in counts.states if not state.is_pretrained
    }
    for target, size in targets_and_sizes:
        labels = set(subset(training_images(target), size).labels)
        seen_outputs: set[int] = set()
        for label in labels:
            seen_outputs.update(spaces[target].indices[label])
        seen[target, size] = {}
        for dataset in counts.datasets:
            class_is_seen = np.array(
                [not seen_outputs.isdisjoint(outputs) for outputs in spaces[dataset].indices]
            )
            seen[target, size][dataset] = class_is_seen[counts.labels[dataset]]
    return seen
