"""Which images are of classes that the training images of a run show."""

from types import SimpleNamespace

import numpy as np

from rib.analysis.coverage import coverage
from rib.data.view import DatasetFiles
from tiny.states import state_of
from tiny.training import VIEW, prepared_folder, random_images


def test_a_training_subset_shows_only_the_classes_of_its_own_images(tmp_path):
    """Two images of a target with three classes are of two classes.

    The third is unseen, in every dataset.
    """
    # given: a target with three images of each class, and another dataset with another order
    target, other = random_images(9), random_images(6, seed=1)
    other.labels = other.labels[::-1].copy()
    files = [
        DatasetFiles(name, prepared_folder(tmp_path / name, dataset))
        for name, dataset in (("target", target), ("other", other))
    ]
    counts = SimpleNamespace(
        states=[state_of("m", "ft", "target", size, 0) for size in ("all", "2")],
        datasets=["target", "other"],
        labels={"target": target.labels, "other": other.labels},
    )
    # when
    seen = coverage(counts, files, VIEW)
    # then
    assert all(of_dataset.all() for of_dataset in seen["target", "all"].values())
    seen_classes = {int(label) for label in target.labels[seen["target", "2"]["target"]]}
    assert len(seen_classes) == 2
    for dataset, labels in counts.labels.items():
        assert seen["target", "2"][dataset].tolist() == np.isin(labels, list(seen_classes)).tolist()
