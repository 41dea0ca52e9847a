"""Splits and nested subsets: the same for a source image everywhere, balanced, and one inside the other."""

import collections

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.classes import ClassSpace
from rib.data.prepared import PreparedDataset
from rib.data.splits import PARTS, balanced_order, part, part_of, subset
from rib.io import UserError

SHARES = {"train": 0.6, "select": 0.2}


def dataset(per_class, name="d", group="val", variants=1):
    return of_labels(np.repeat(np.arange(4), per_class), name, group, variants)


def of_labels(labels, name="d", group="val", variants=1):
    """A dataset with so many images of each source, as ImageNet-C has of each photo."""
    sources = [f"{group}/{label}/{number}" for number, label in enumerate(labels) for _ in range(variants)]
    images = [f"{source}/{variant % variants}" for variant, source in enumerate(sources)]
    labels = np.repeat(labels, variants)
    space = ClassSpace(tuple("abcd"), tuple((i,) for i in range(4)), tuple("abcd"))
    index = pa.table({"source_id": sources, "image_id": images, "label": labels})
    return PreparedDataset(name, np.arange(len(labels)), labels, None, index, space)


def test_the_parts_have_their_shares():
    counts = collections.Counter(part_of(f"s{number}", SHARES) for number in range(20000))
    assert [counts[name] / 20000 for name in PARTS] == pytest.approx([0.6, 0.2, 0.2], abs=0.01)


def test_datasets_that_share_sources_are_split_alike():
    whole, copy = dataset(50), dataset(50, "copy")
    for which in PARTS:
        assert part(whole, which, SHARES).source_ids == part(copy, which, SHARES).source_ids
    assert part(whole, "test", SHARES).source_ids != part(dataset(50, group="other"), "test", SHARES).source_ids


def test_the_parts_are_disjoint_and_complete():
    parts = [set(part(dataset(50), which, SHARES).source_ids) for which in PARTS]
    assert sum(map(len, parts)) == 200 == len(set.union(*parts))
    assert part(dataset(50), "train", None).source_ids == dataset(50).source_ids


def test_a_part_knows_its_images():
    chosen = part(dataset(50), "test", SHARES)
    whole = dataset(50)
    assert [whole.source_ids[row] for row in chosen.rows] == chosen.source_ids
    assert (whole.labels[chosen.rows] == chosen.labels).all()
    again = chosen.take(np.array([1, 3]))
    assert [whole.source_ids[row] for row in again.rows] == again.source_ids


def test_a_class_without_training_images_is_refused():
    with pytest.raises(UserError, match=r"held_out: d: class '.' has no image in the train part.*use protocol paper"):
        part(dataset(1), "train", SHARES)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_smaller_subsets_lie_inside_larger_ones_and_classes_are_balanced(labels, data):
    labels = np.sort(np.array(labels))
    order = balanced_order(of_labels(labels))
    assert sorted(order) == list(range(len(labels)))
    n = data.draw(st.integers(1, len(labels)))
    counts = collections.Counter(labels[order[:n]])
    for label, available in collections.Counter(labels).items():
        assert counts[label] == available or counts[label] >= max(counts.values()) - 1


def test_sizes_are_numbers_or_fractions():
    whole = dataset(10)
    small, half = subset(whole, "6"), subset(whole, "0.5")
    assert len(small.labels) == 6 and len(half.labels) == 20 and set(small.source_ids) < set(half.source_ids)
    assert subset(whole, "all") is whole
    for size in ("41", "0.001"):
        with pytest.raises(UserError, match=f"downstream_size {size}: d has 40 images to train on"):
            subset(whole, size)


def test_a_budget_takes_other_sources_before_another_image_of_one():
    """Of ImageNet-C's many images of a photo one is taken first, of the photos that other sets' budgets take."""
    many, plain = dataset(6, variants=5), dataset(6)
    order = balanced_order(many)
    first = many.take(np.sort(order[:24]))
    assert sorted(first.source_ids) == sorted(plain.source_ids), "each source once"
    chosen = many.take(np.sort(order[:8]))
    assert collections.Counter(chosen.labels) == dict.fromkeys(range(4), 2)
    assert set(chosen.source_ids) == set(plain.take(np.sort(balanced_order(plain)[:8])).source_ids)
    variants = {image.rsplit("/", 1)[1] for image in first.index["image_id"].to_pylist()}
    assert len(variants) > 2, "which image of a source comes first is random"


@given(st.integers(1, 200), st.integers(1, 200))
def test_budgets_are_nested(one, other):
    many = dataset(10, variants=5)
    order = balanced_order(many)
    assert set(order[: min(one, other)]) <= set(order[: max(one, other)]) and sorted(order) == list(range(200))
