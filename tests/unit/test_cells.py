"""What explains a cell of RI."""

import numpy as np

from rib.analyses.samples.cells import CLASSES, Answers, lost_classes
from rib.config.label_space import LabelSpace


def space(outputs):
    names = tuple(f"class {number}" for number in outputs)
    return LabelSpace(names, tuple((number,) for number in outputs), names)


def test_the_classes_that_lose_most_agree_with_a_count_by_hand():
    rng = np.random.default_rng(0)
    spaces = [space(range(0, 20)), space(range(10, 30))]
    parts = [
        (own, rng.integers(0, 20, 300), rng.random(300) < 0.7, rng.random(300) < 0.5)
        for own in spaces
    ]
    images = [
        (own.names[label], int(was), int(now))
        for own, *arrays in parts
        for label, was, now in zip(*arrays, strict=True)
    ]
    changes = {}
    for name in {name for name, *_ in images}:
        flags = np.array([pair for other, *pair in images if other == name])
        changes[name] = (len(flags), *flags.sum(axis=0))
    found = lost_classes([Answers(*of_dataset) for of_dataset in parts])
    assert len(found) == CLASSES and all(tuple(entry[1:]) == changes[entry[0]] for entry in found)
    losses = [(now - was) / n for _, n, was, now in found]
    others = [
        (now - was) / n
        for name, (n, was, now) in changes.items()
        if name not in {entry[0] for entry in found}
    ]
    assert losses == sorted(losses) and max(losses) < 0 and max(losses) <= min(others)


def test_a_class_that_gains_is_not_among_those_that_lose():
    labels = np.array([0, 0, 1, 1])
    before, after = np.array([True, False, True, False]), np.array([True, True, False, False])
    answers = Answers(space([4, 7]), labels, before, after)
    assert lost_classes([answers]) == [["class 7", 2, 1, 0]]
