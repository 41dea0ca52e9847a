"""Which images are of classes that a run's training images show (seen).

Label spaces differ, so classes are compared by their network outputs: a class is seen if it shares one with the class
of a training image.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np

from rib.analysis.counts import Counts
from rib.base.files import read_json
from rib.config.label_space import LabelSpace
from rib.config.run import PRETRAINED
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, DatasetView, load_dataset

Coverage = dict[tuple[str, str], dict[str, np.ndarray]]


def label_spaces(datasets: Iterable[DatasetFiles]) -> dict[str, LabelSpace]:
    """Label spaces of prepared datasets by name."""
    return {
        own.name: LabelSpace.from_json(read_json(own.folder / "classes.json")) for own in datasets
    }


def coverage(counts: Counts, datasets: Iterable[DatasetFiles], view: DatasetView) -> Coverage:
    """Which objects of each dataset are of a seen class: (n,) bool, as in `counts`, by target and size, and dataset."""
    files, found = {own.name: replace(own, pixels=False) for own in datasets}, {}
    spaces = label_spaces(files.values())
    whole = cache(lambda target: load_dataset(files[target], view, TRAIN))
    for target, size in {state[2:4] for state in counts.states if state[1] != PRETRAINED}:
        trained = set(subset(whole(target), size).labels)
        outputs = {output for label in trained for output in spaces[target].indices[label]}
        seen = {
            name: [not outputs.isdisjoint(row) for row in spaces[name].indices]
            for name in counts.datasets
        }
        found[target, size] = {
            name: np.array(own)[counts.labels[name]] for name, own in seen.items()
        }
    return found
