"""Which images are of classes that the training images of a run show."""

from types import SimpleNamespace

import numpy as np

from rib.data.dataset import PreparedDataset
from rib.data.subsets import subset
from rib.data.view import DatasetFiles
from rib.statistics.coverage import coverage
from tiny.models.training import VIEW, prepared_folder, random_images
from tiny.tables.states import state_of


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
    seen = coverage(counts, files, VIEW, {state.run: ["ft"] for state in counts.states})
    # then
    whole, part = (seen.objects[seen.training_sets[state.run]] for state in counts.states)
    assert all(objects.all() for objects in whole.values())
    seen_classes = {int(label) for label in target.labels[part["target"]]}
    assert len(seen_classes) == 2
    for dataset, labels in counts.labels.items():
        assert part[dataset].tolist() == np.isin(labels, list(seen_classes)).tolist()


def test_each_seed_has_seen_the_classes_of_its_own_draw_and_a_merge_over_seeds_those_of_all(
    tmp_path,
):
    # given: one image of three classes is drawn with each of six seeds
    target = random_images(9)
    files = [DatasetFiles("target", prepared_folder(tmp_path / "target", target))]
    counts = SimpleNamespace(
        states=[
            *(state_of("m", "ft", "target", "1", seed) for seed in range(6)),
            state_of("m", "soup", "target", "1", 0),
        ],
        datasets=["target"],
        labels={"target": target.labels},
    )
    checkpoints = {state.run: [state.run.method] for state in counts.states}
    checkpoints[counts.states[-1].run] = [f"ft, seed {seed}" for seed in range(6)]
    # when
    seen = coverage(counts, files, VIEW, checkpoints)
    # then
    whole = PreparedDataset.open(files[0].folder, "target")
    classes = []
    for state in counts.states:
        objects = seen.objects[seen.training_sets[state.run]]["target"]
        classes.append(set(target.labels[objects].tolist()))
    for seed, classes_of_seed in enumerate(classes[:-1]):
        assert classes_of_seed == set(subset(whole, "1", seed).labels.tolist())
    assert len(set(map(frozenset, classes[:-1]))) > 1, "not all draws are of one class"
    assert classes[-1] == set.union(*classes[:-1])
