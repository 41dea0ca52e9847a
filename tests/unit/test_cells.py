"""What explains a cell of RI."""

import numpy as np

from rib.analyses.cells.tables import CLASSES, Answers, lost_classes
from rib.catalog.label_space import LabelSpace


def space_of(outputs):
    """A label space with a class for each of these outputs."""
    names = tuple(f"class {output}" for output in outputs)
    indices = tuple((output,) for output in outputs)
    return LabelSpace(names, indices, names)


def random_answers(rng, space, images=300):
    """Answers to images of a dataset, of which fewer are right after fine-tuning than before."""
    return Answers(
        space=space,
        labels=rng.integers(0, len(space.names), images),
        right_before=rng.random(images) < 0.7,
        right_after=rng.random(images) < 0.5,
    )


def counts_by_hand(answers_of_datasets):
    """By name of a class: its images, and how many of them are right before and after."""
    counts = {}
    for answers in answers_of_datasets:
        for label, before, after in zip(
            answers.labels, answers.right_before, answers.right_after, strict=True
        ):
            counts_of_class = counts.setdefault(answers.space.names[label], np.zeros(3, int))
            counts_of_class += [1, before, after]
    return counts


def test_the_classes_that_lose_most_agree_with_a_count_by_hand():
    # given two datasets that share ten of their twenty classes
    rng = np.random.default_rng(0)
    answers = [
        random_answers(rng, space_of(range(0, 20))),
        random_answers(rng, space_of(range(10, 30))),
    ]
    # when
    classes = lost_classes(answers)
    # then
    counts = counts_by_hand(answers)
    change_of_class = {}
    for name, (images, before, after) in counts.items():
        change_of_class[name] = (after - before) / images
    assert len(classes) == CLASSES
    changes = []
    for name, *counts_of_class in classes:
        assert counts_of_class == counts[name].tolist()
        changes.append(change_of_class.pop(name))
    assert changes == sorted(changes)
    assert max(changes) < 0
    assert max(changes) <= min(change_of_class.values()), "no other class loses more"


def test_a_class_that_gains_is_not_among_those_that_lose():
    answers = Answers(
        space=space_of([4, 7]),
        labels=np.array([0, 0, 1, 1]),
        right_before=np.array([True, False, True, False]),
        right_after=np.array([True, True, False, False]),
    )
    assert lost_classes([answers]) == [["class 7", 2, 1, 0]]
