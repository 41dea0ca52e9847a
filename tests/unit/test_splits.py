"""Splits and nested subsets.

They are the same for a source image everywhere, balanced, and one inside the other.
"""

import collections
import math
from hashlib import sha256

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.catalog.label_space import LabelSpace
from rib.data import subsets
from rib.data.dataset import PreparedDataset
from rib.data.identity import PHOTO
from rib.data.split_dataset import EarlierSplit, split_dataset
from rib.data.splits import (
    LEFT_OUT,
    SELECT,
    TEST,
    TRAIN,
    assign_splits,
    assign_whole_objects,
    read_split,
)
from rib.data.subsets import balanced_order, balanced_over_slices, first_images, subset
from rib.data.view import DatasetFiles, load_dataset, load_proxy, load_whole
from tiny.changed import replace
from tiny.models.training import VIEW

FRACTIONS = {"train": 0.6, "select": 0.2}
PARTS = (TRAIN, SELECT, TEST)


def dataset(per_class, variants=1):
    """A dataset of four classes with so many sources each, see `of_labels`."""
    return of_labels(np.repeat(np.arange(4), per_class), variants)


def of_labels(labels_of_sources, variants=1):
    """A dataset with so many images of each source, as ImageNet-C has of each photo."""
    sources = []
    images = []
    for number, label in enumerate(labels_of_sources):
        source = f"val/{label}/{number}"
        for variant in range(variants):
            sources.append(source)
            images.append(f"{source}/{variant}")
    labels = np.repeat(labels_of_sources, variants)
    space = LabelSpace(tuple("abcd"), tuple((i,) for i in range(4)), tuple("abcd"))
    index = pa.table({"source_id": sources, "image_id": images, "label": labels})
    return PreparedDataset("d", np.arange(len(labels)), labels, None, index, space)


def prepared(folder, labels, variants=1, photos=None):
    """Write a dataset as a prepare job does; gives its folder.

    Pixels, which no split looks at, have one value.

    Args:
        labels: class by source.
        variants: images of each source.
        photos: identities of its images; without them each is another photo.
    """
    images = of_labels(np.array(list(labels.values())), variants)
    n = len(images.labels)
    if photos is None:
        photos = [f"{folder.name}/photo {row}" for row in range(n)]
    source_ids = np.repeat(list(labels), variants)
    index = images.index.set_column(0, "source_id", [source_ids]).append_column(PHOTO, [photos])
    folder.mkdir(parents=True)
    pq.write_table(index, folder / "index.parquet")
    np.save(folder / "images.npy", np.zeros((n, 1, 1, 3), np.uint8))
    write_json(folder / "classes.json", images.space.to_json())
    return folder


def split_of(folder, earlier=(), budget="all", fractions=FRACTIONS, same_sources=True):
    """Split a prepared dataset; gives the file of the split.

    Args:
        earlier: files of splits of other datasets.
        same_sources: whether these have the same source images.
    """
    table = folder / "split.parquet"
    earlier_splits = [
        EarlierSplit(path, path.with_name("index.parquet"), same_sources) for path in earlier
    ]
    split_dataset(
        files=DatasetFiles(folder.name, folder),
        view=replace(VIEW, budget=budget),
        fractions=fractions,
        earlier=earlier_splits,
        table=table,
    )
    return table


def sources(n, classes=4, prefix="s"):
    """The class of so many sources of each class, by id."""
    return sources_of_sizes([n] * classes, prefix)


def sources_of_sizes(sizes, prefix="s"):
    """The class of sources by id, from the number of each class."""
    return {
        f"{prefix}{label}/{number}": label
        for label, size in enumerate(sizes)
        for number in range(size)
    }


def tally(labels, parts):
    """Number of sources of each class (a row) in each part (a column)."""
    numbers = collections.Counter((label, parts[source]) for source, label in labels.items())
    classes = sorted(set(labels.values()))
    columns = {}
    for part in PARTS:
        columns[part] = [numbers[label, part] for label in classes]
    return pd.DataFrame(columns, index=classes)


def largest_error(counts, fractions):
    """By how many images a part of a row is off what was asked for, at most.

    Args:
        counts: rows and parts, see `tally`.
        fractions: those that were asked for.
    """
    train = fractions["train"]
    select = fractions["select"]
    shares = [train, select, 1 - (train + select)]
    asked_for = np.outer(counts.sum(axis=1), shares)
    return np.abs(counts[list(PARTS)].to_numpy() - asked_for).max()


def totals(counts):
    """The numbers of all classes together, in one row."""
    return counts.sum().to_frame().T


percent = st.integers(5, 90)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), percent, percent)
def test_each_class_and_the_whole_have_their_fractions_within_one_image(sizes, train, select):
    each_class_can_have_a_training_image = min(sizes) * train >= 100
    assume(train + select < 100 and each_class_can_have_a_training_image)
    fractions = {"train": train / 100, "select": select / 100}
    labels = sources_of_sizes(sizes)
    counts = tally(labels, assign_splits(labels, fractions, {}))
    assert list(counts.sum(axis=1)) == sizes
    assert (counts[TRAIN] > 0).all()
    assert largest_error(counts, fractions) < 1
    assert largest_error(totals(counts), fractions) < 1


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(1, 3), min_size=4, max_size=12))
def test_totals_take_no_class_its_last_training_image(sizes):
    labels = sources_of_sizes(sizes)
    counts = tally(labels, assign_splits(labels, FRACTIONS, {}))
    assert (counts[TRAIN] > 0).all()
    assert largest_error(counts, FRACTIONS) < 1


def test_a_thousand_classes_of_29_are_not_all_rounded_alike():
    labels = sources(29, 1000)
    counts = tally(labels, assign_splits(labels, FRACTIONS, {}))
    assert set(counts[TRAIN]) == {17, 18}
    assert set(counts[SELECT]) | set(counts[TEST]) == {5, 6}
    assert counts.sum().to_dict() == {TRAIN: 17400, SELECT: 5800, TEST: 5800}


@settings(deadline=None)  # the machine may be busy
@given(st.permutations(range(60)))
def test_the_order_of_rows_says_nothing(order):
    labels = sources(15)
    ids = list(labels)
    labels_in_order = {ids[row]: labels[ids[row]] for row in order}
    assert assign_splits(labels_in_order, FRACTIONS, {}) == assign_splits(labels, FRACTIONS, {})


def earlier_parts_leave_room(labels, earlier_parts):
    """Whether no part has more sources of a class than it should, before it is split."""
    n = len(labels)
    sources_of_part = collections.Counter(earlier_parts.get(source) for source in labels)
    shares = {TRAIN: 0.6, SELECT: 0.2, TEST: 0.2}
    return all(sources_of_part[part] <= share * n for part, share in shares.items())


@pytest.mark.parametrize("seed", range(30))
def test_a_source_is_in_one_part_in_all_datasets_of_its_group(seed):
    """Three datasets hold any of the sources, the last among classes of its own.

    What is new makes up for what is not.
    """
    # given
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, 90).tolist()
    holders = rng.integers(0, 8, 90)  # a bit for each dataset that has the source
    held_by_first = {f"s{i}": classes[i] for i in range(90) if holders[i] & 1}
    held_by_second = {f"s{i}": classes[i] for i in range(90) if holders[i] & 2}
    held_by_last = {f"s{i}": classes[i] // 2 for i in range(90) if holders[i] & 4}
    earlier_parts = {}
    sources_split_before = 0
    classes_with_room = 0
    for labels in (held_by_first, held_by_second, held_by_last):
        # when
        parts = assign_splits(labels, FRACTIONS, earlier_parts)
        # then
        assert parts.keys() == labels.keys()
        for source in labels.keys() & earlier_parts.keys():
            sources_split_before += 1
            assert parts[source] == earlier_parts[source]
        for label in set(labels.values()):
            of_class = {source: label for source in labels if labels[source] == label}
            if earlier_parts_leave_room(of_class, earlier_parts):
                classes_with_room += 1
                assert largest_error(tally(of_class, parts), FRACTIONS) < 1
        earlier_parts |= parts
    assert sources_split_before > 0
    assert classes_with_room >= 4


def test_another_dataset_changes_no_split_before_it_and_the_same_sources_are_split_as_alone(
    tmp_path,
):
    # given
    labels = sources(29)
    half_of_sources = dict(list(labels.items())[::2])
    labels_of_more = half_of_sources | sources(20, prefix="n")
    val = prepared(tmp_path / "val", labels)
    copy = prepared(tmp_path / "copy", labels, variants=3)
    more = prepared(tmp_path / "more", labels_of_more)
    # when
    split_of_val = split_of(val)
    bytes_of_val = split_of_val.read_bytes()
    split_of_copy = split_of(copy, [split_of_val])
    split_of_more = split_of(more, [split_of_val, split_of_copy])
    # then
    parts_of_val = read_split(split_of_val)
    parts_of_copy = read_split(split_of_copy)
    parts_of_more = read_split(split_of_more)
    table = pq.read_table(split_of_copy).to_pandas()
    assert split_of(val).read_bytes() == bytes_of_val
    assert parts_of_copy == parts_of_val
    assert parts_of_copy == read_split(split_of(copy)), "alone, it is split in the same way"
    assert set(half_of_sources) < set(parts_of_val)
    assert all(parts_of_more[source] == parts_of_val[source] for source in half_of_sources)
    # of 34 or 35 sources of a class 14 or 15 came with their part, and the 20 others make up for
    # them
    assert largest_error(tally(labels_of_more, parts_of_more), FRACTIONS) < 1
    assert set(table["images"]) == {3}
    assert list(table["source_id"]) == sorted(table["source_id"])


def errors_within(parts, labels):
    """By how many images a part of a class is off its fraction, at most.

    Args:
        parts: of those sources that a budget takes.
        labels: class of all sources.
    """
    labels_within = {source: labels[source] for source in parts}
    return largest_error(tally(labels_within, parts), FRACTIONS)


@pytest.mark.parametrize("budget", [20, 57, 90])
def test_a_budget_is_split_as_evenly(tmp_path, budget):
    """What the budget takes of a set is split like a whole one.

    Another set's sources agree with it.
    """
    # given
    labels = sources(29)
    val = prepared(tmp_path / "val", labels)
    copy = prepared(tmp_path / "copy", labels, variants=3)
    # when
    split_of_val = split_of(val, budget=budget)
    split_of_copy = split_of(copy, [split_of_val], budget=budget)
    # then
    parts_of_val = read_split(split_of_val)
    assert len(parts_of_val) == budget
    assert errors_within(parts_of_val, labels) < 1
    assert read_split(split_of_copy) == parts_of_val


@pytest.mark.parametrize("budget", [20, 57, 90])
def test_a_budget_is_split_evenly_by_the_parts_that_its_sources_have(tmp_path, budget):
    """Another set with these sources was split as a whole before."""
    # given
    labels = sources(29)
    whole = prepared(tmp_path / "whole", labels)
    smaller = prepared(tmp_path / "smaller", labels)
    # when
    split_of_smaller = split_of(smaller, [split_of(whole)], budget=budget)
    # then
    parts_of_smaller = read_split(split_of_smaller)
    assert len(parts_of_smaller) == budget
    error = errors_within(parts_of_smaller, labels)
    assert error < 1.5, "parts alternate in the budget's order"


def source_ids(images):
    """The unique ids of the source images of a dataset or a part of it."""
    _, ids = images.sources
    return ids


def test_splits_are_disjoint_and_complete_and_of_a_proxy_the_train_split_is_taken(tmp_path):
    # given
    folder = prepared(tmp_path / "val", sources(29))
    whole = DatasetFiles("val", folder)
    all_sources = source_ids(load_whole(whole, VIEW))
    # when
    split = replace(whole, split=split_of(folder))
    # then
    trained = source_ids(load_dataset(split, VIEW, TRAIN))
    selected = source_ids(load_dataset(split, VIEW, SELECT))
    tested = source_ids(load_dataset(split, VIEW, TEST))
    assert len(trained) + len(selected) + len(tested) == 4 * 29
    assert {*trained, *selected, *tested} == set(all_sources)
    assert source_ids(load_dataset(whole, VIEW, TRAIN)) == all_sources
    assert source_ids(load_proxy(whole, VIEW)) == all_sources
    assert source_ids(load_proxy(split, VIEW)) == trained


def parts_of_photos(*folders, budget="all"):
    """The parts in which each photo is, over datasets that were split."""
    view = replace(VIEW, budget=budget)
    parts_by_photo = collections.defaultdict(set)
    for folder in folders:
        parts = read_split(folder / "split.parquet")
        photos = pq.read_table(folder / "index.parquet")[PHOTO].to_pylist()
        images = load_whole(DatasetFiles(folder.name, folder), view)
        sources_of_images = images.index["source_id"].to_pylist()
        rows = images.rows
        if rows is None:
            rows = range(len(photos))
        for source, row in zip(sources_of_images, rows, strict=True):
            parts_by_photo[photos[row]].add(parts[source])
    return parts_by_photo


def test_two_files_with_one_photo_are_in_one_part(tmp_path):
    """A dataset has each photo twice under two names.

    When it is split, no photo is in two parts, as of single ones.
    """
    labels = sources(40)
    photos = [f"photo {number // 2}" for number in range(len(labels))]
    folder = prepared(tmp_path / "twice", labels, photos=photos)
    split = split_of(folder)
    table = pq.read_table(split).to_pandas()
    assert {len(parts) for parts in parts_of_photos(folder).values()} == {1}
    assert list(table["source_id"]) == sorted(labels)
    assert table["images"].sum() == len(labels)
    assert largest_error(tally(labels, read_split(split)), FRACTIONS) < 2


def test_a_dataset_without_identical_photos_is_split_as_by_its_ids_alone(tmp_path):
    labels = sources(29)
    table = pq.read_table(split_of(prepared(tmp_path / "a", labels)))
    assert table.column_names == ["source_id", "part", "images"]
    columns = table.to_pydict()
    parts = dict(zip(columns["source_id"], columns["part"], strict=True))
    assert parts == assign_splits(labels, FRACTIONS, {})


def test_a_photo_of_an_earlier_dataset_keeps_its_part_under_any_name(tmp_path):
    """Two datasets without common ids share photos.

    The first decides, and knows nothing of the second.
    """
    # given
    photos = [f"photo {n}" for n in range(80)]
    every_second_is_another = [f"own {n}" if n % 2 == 0 else f"photo {n}" for n in range(80)]
    labels_of_second = sources(20, prefix="other")
    first = prepared(tmp_path / "first", sources(20), photos=photos)
    second = prepared(tmp_path / "second", labels_of_second, photos=every_second_is_another)
    # when
    split_of_first = split_of(first)
    bytes_of_first = split_of_first.read_bytes()
    split_of_second = split_of(second, [split_of_first], same_sources=False)
    # then
    assert {len(parts) for parts in parts_of_photos(first, second).values()} == {1}
    counts = tally(labels_of_second, read_split(split_of_second))
    assert largest_error(counts, FRACTIONS) < 1
    assert split_of(first).read_bytes() == bytes_of_first


def test_equal_ids_of_datasets_with_other_sources_mean_nothing(tmp_path):
    # given
    first = prepared(tmp_path / "first", sources(29))
    second = prepared(tmp_path / "second", sources(29) | sources(3, prefix="n"))
    # when
    bytes_alone = split_of(second).read_bytes()
    bytes_after_first = split_of(second, [split_of(first)], same_sources=False).read_bytes()
    # then
    assert bytes_after_first == bytes_alone


@pytest.mark.parametrize("budget", ["all", 50])
@pytest.mark.parametrize("seed", range(20))
def test_no_photo_is_trained_on_and_tested_in_any_datasets(tmp_path, seed, budget):
    """Three datasets have any photos under any ids.

    The first and the last have the same source images.
    """
    # given
    rng = np.random.default_rng(seed)
    labels = sources(30)
    folders = []
    for number in range(3):
        photos = [f"photo {photo}" for photo in rng.integers(0, 300, 2 * len(labels))]
        folders.append(prepared(tmp_path / str(number), labels, variants=2, photos=photos))
    first_folder, _second_folder, last_folder = folders
    # when
    earlier_splits = []
    for folder in folders:
        table = folder / "split.parquet"
        split_dataset(
            files=DatasetFiles(folder.name, folder),
            view=replace(VIEW, budget=budget),
            fractions=FRACTIONS,
            earlier=earlier_splits,
            table=table,
        )
        has_sources_of_first = folder == first_folder
        earlier_splits.append(EarlierSplit(table, folder / "index.parquet", has_sources_of_first))
    # then
    parts_by_photo = parts_of_photos(*folders, budget=budget)
    used_parts = [parts - {LEFT_OUT} for parts in parts_by_photo.values()]
    assert max(len(parts) for parts in used_parts) == 1
    parts_of_first = read_split(first_folder / "split.parquet")
    parts_of_last = read_split(last_folder / "split.parquet")
    common_sources = parts_of_first.keys() & parts_of_last.keys()
    assert common_sources
    for source in common_sources:
        assert parts_of_last[source] in (parts_of_first[source], LEFT_OUT)


def test_a_source_image_that_links_a_trained_and_a_tested_one_is_left_out(tmp_path, caplog):
    """A source with two images is in no part.

    One of them is trained on, the other tested elsewhere.
    """
    # given
    labels_of_first = sources(20)
    photos_of_first = [f"photo of {source}" for source in labels_of_first]
    first = prepared(tmp_path / "first", labels_of_first, photos=photos_of_first)
    split_of_first = split_of(first)
    parts_of_first = read_split(split_of_first)
    trained = [source for source in labels_of_first if parts_of_first[source] == TRAIN]
    tested = [source for source in labels_of_first if parts_of_first[source] == TEST]
    first_trained, *_ = trained
    first_tested, *_ = tested
    linked_photos = [f"photo of {first_trained}", f"photo of {first_tested}"]
    photos_of_second = linked_photos + [f"own {n}" for n in range(38)]
    labels_of_second = sources(5, prefix="o")
    second = prepared(tmp_path / "second", labels_of_second, variants=2, photos=photos_of_second)
    # when
    split_of_second = split_of(second, [split_of_first], same_sources=False)
    # then
    parts = read_split(split_of_second)
    left_out = [source for source, part in parts.items() if part == LEFT_OUT]
    assert left_out == ["o0/0"]
    assert "second: left out 1 source images" in caplog.text
    files = DatasetFiles("second", second, split=split_of_second)
    images = sum(len(load_dataset(files, VIEW, part).labels) for part in PARTS)
    assert images == 40 - 2


def test_a_budget_takes_each_photo_before_any_twice(tmp_path):
    # given: each photo twice
    photos = [f"photo {n // 2}" for n in range(40)]
    folder = prepared(tmp_path / "twice", sources(10), photos=photos)
    # when
    half_of_images = load_whole(DatasetFiles("twice", folder), replace(VIEW, budget=20))
    # then
    photos_that_were_taken = {photos[row] for row in half_of_images.rows}
    assert len(photos_that_were_taken) == 20


@pytest.mark.parametrize("per_class, part", [(1, "test"), (3, "train")])
def test_a_part_without_images_and_a_class_without_training_images_are_refused(
    tmp_path, per_class, part
):
    # given
    fractions = {"test": FRACTIONS, "train": {"train": 0.1, "select": 0.2}}
    folder = prepared(tmp_path / "d", sources(per_class))
    # when
    split = split_of(folder, fractions=fractions[part])
    # then
    with pytest.raises(UserError, match=rf"held_out: d: .* the {part} split"):
        load_dataset(DatasetFiles("d", folder, split=split), VIEW, part)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 2**64 - 1), st.data())
def test_subsets_are_nested_and_classes_are_balanced(labels, seed, data):
    # given
    labels = np.sort(np.array(labels))
    size = data.draw(st.integers(1, len(labels)))
    # when
    order = balanced_order(of_labels(labels), seed)
    # then
    assert sorted(order) == list(range(len(labels)))
    available = collections.Counter(labels)
    taken = collections.Counter(labels[order[:size]])
    most_of_a_class = max(taken.values())
    for label in available:
        assert taken[label] == available[label] or taken[label] >= most_of_a_class - 1


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 9), st.data())
def test_a_smaller_subset_of_a_seed_is_part_of_its_larger_ones(labels, seed, data):
    images = of_labels(np.sort(np.array(labels)))
    small = data.draw(st.integers(1, len(labels) - 1))
    large = data.draw(st.integers(small, len(labels)))
    sources_of_small = set(source_ids(subset(images, str(small), seed)))
    sources_of_large = set(source_ids(subset(images, str(large), seed)))
    assert sources_of_small <= sources_of_large


def test_each_seed_draws_other_images():
    images = dataset(50)
    draws = [frozenset(source_ids(subset(images, "8", seed))) for seed in range(20)]
    drawn_sources = frozenset.union(*draws)
    assert len(set(draws)) == 20
    assert len(drawn_sources) > 100, "draws of 160 images overlap no more than by chance"


def hashed(text):
    """What images and their sources are sorted by, from their ids."""
    return sha256(f"order\0{text}".encode()).digest()[:8]


def order_of_class(images, label):
    """Images of a class in the order in which budgets take them, from its definition.

    First come all sources with their first image, sorted by hashes, then all with their second.
    """
    image_ids = images.index["image_id"].to_pylist()
    images_of_source = collections.defaultdict(list)
    for image, source in enumerate(images.index["source_id"].to_pylist()):
        if images.labels[image] == label:
            images_of_source[source].append(image)

    def hash_of_image(image):
        return hashed(image_ids[image])

    keys = {}
    for source, images_of_one in images_of_source.items():
        for turn, image in enumerate(sorted(images_of_one, key=hash_of_image)):
            keys[image] = (turn, hashed(source))
    return sorted(keys, key=keys.get)


def test_seed_0_draws_what_all_seeds_drew_in_earlier_versions():
    """The order of budgets, too, which is written out here: hashes of class and source id."""
    # given
    images = dataset(5, variants=2)
    source_of_image = images.index["source_id"].to_pylist()
    # when
    order = balanced_order(images, 0).tolist()
    budget = first_images(images, 9)
    # then
    keys = {}
    for label in range(4):
        for rank, image in enumerate(order_of_class(images, label)):
            keys[image] = (rank, hashed(source_of_image[image]))
    expected = sorted(keys, key=keys.get)
    assert len(expected) == len(images.labels)
    assert order == expected
    assert budget.rows.tolist() == sorted(expected[:9])


def test_sizes_are_numbers_or_fractions():
    images = dataset(10)
    small = subset(images, "6", seed=3)
    half = subset(images, "0.5", seed=3)
    assert len(small.labels) == 6
    assert len(half.labels) == 20
    assert set(source_ids(small)) < set(source_ids(half))
    assert subset(images, "all", seed=3) is images


@pytest.mark.parametrize("size", ["41", "0.001"])
def test_a_size_that_a_dataset_does_not_have_is_refused(size):
    images = dataset(10)
    with pytest.raises(UserError, match=f"train_subset {size}: d has 40 images"):
        subset(images, size, seed=3)


def test_a_budget_takes_other_sources_before_another_image_of_one():
    """Of ImageNet-C's many images of a photo one is taken first.

    It is one of the photos that other sets' budgets take.
    """
    # given
    without_variants = dataset(6)
    with_variants = dataset(6, variants=5)
    # when
    order_without_variants = balanced_order(without_variants)
    order = balanced_order(with_variants)
    # then
    assert sorted(order) == list(range(120))
    first_24 = with_variants.take(np.sort(order[:24]))
    first_8 = with_variants.take(np.sort(order[:8]))
    first_8_without_variants = without_variants.take(np.sort(order_without_variants[:8]))
    assert sorted(source_ids(first_24)) == sorted(source_ids(without_variants)), "each source once"
    assert collections.Counter(first_8.labels) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert set(source_ids(first_8)) == set(source_ids(first_8_without_variants))
    variants = {image_id.rpartition("/")[-1] for image_id in first_24.index["image_id"].to_pylist()}
    assert len(variants) > 2, "which image of a source comes first is random"


def counts_by_slice(images, rows, slices):
    """Number of images in some rows by class and slice, (4, slices).

    Args:
        slices: that of each image, by number.
    """
    number_of_slices = int(slices.max()) + 1
    counts = np.zeros((4, number_of_slices), int)
    np.add.at(counts, (images.labels[rows], slices[rows]), 1)
    return counts


@pytest.mark.parametrize("number_of_slices", [2, 6, 15])
def test_a_budget_takes_slices_in_turn_and_sources_as_ever(number_of_slices):
    """Given each source in each corruption, as ImageNet-C has them, when some images are taken,
    then each class has about as many of each corruption, from the sources that were taken before.
    """
    # given
    images = dataset(7, variants=number_of_slices)
    slices = np.tile(np.arange(number_of_slices), 28)
    source_of_image, _ = images.sources
    # when
    order = balanced_over_slices(images, slices)
    order_without_slices = balanced_order(images)
    # then
    assert sorted(order) == list(range(28 * number_of_slices))
    assert source_of_image[order].tolist() == source_of_image[order_without_slices].tolist()
    for taken in range(1, len(order)):
        counts = counts_by_slice(images, order[:taken], slices)
        counts_of_all_classes = counts.sum(axis=0)
        assert np.ptp(counts, axis=1).max() <= 3, f"{taken} images; up to 7 by chance"
        assert np.ptp(counts_of_all_classes) <= 4, f"{taken} images"


def test_a_budget_takes_sources_of_each_slice_where_a_source_has_only_one():
    # given: patches of slides, each a source of its own; of a class 20, 9 and 1 of a slide
    images = dataset(30)
    slide_of_image = np.tile(np.repeat(np.arange(3), [20, 9, 1]), 4)
    # when
    order = balanced_over_slices(images, slide_of_image)
    # then
    nine_per_class = order[: 4 * 9]
    counts = counts_by_slice(images, nine_per_class, slide_of_image)
    assert counts.tolist() == [[4, 4, 1]] * 4


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 3))
def test_a_budget_of_a_dataset_without_slices_takes_what_it_took_before_there_were_slices(
    labels, variants
):
    images = of_labels(np.array(labels), variants)
    one_slice = np.zeros(len(images.labels), int)
    order = balanced_over_slices(images, one_slice)
    assert order.tolist() == balanced_order(images).tolist()


def reference_order(labels, sources, slices, image_ids):
    """The rows in the order in which budgets take them, from its definition, one row at a time."""
    number_of_slices = max(slices) + 1
    stride = round(0.618 * number_of_slices)
    while math.gcd(stride, number_of_slices) > 1:
        stride += 1
    rows = range(len(labels))
    sources_of_class = {
        label: sorted({sources[row] for row in rows if labels[row] == label}, key=hashed)
        for label in set(labels)
    }
    classes = sorted(sources_of_class, key=lambda label: hashed(sources_of_class[label][0]))

    def turn(row):
        """How many images of its source a row's slice would come after, if it had one of each."""
        place_of_class = classes.index(labels[row])
        place_in_class = sources_of_class[labels[row]].index(sources[row])
        first_slice = place_in_class + stride * place_of_class
        return (slices[row] - first_slice) * pow(stride, -1, number_of_slices) % number_of_slices

    def ranks(group_of_row, key_of_row):
        """Rank of each row among those of its group."""
        taken = collections.Counter()
        rank_of_row = {}
        for row in sorted(rows, key=key_of_row):
            rank_of_row[row] = taken[group_of_row(row)]
            taken[group_of_row(row)] += 1
        return rank_of_row

    def source_hash(row):
        return hashed(sources[row])

    in_source = ranks(lambda row: sources[row], lambda row: (turn(row), hashed(image_ids[row])))
    in_slice = ranks(lambda row: (in_source[row], labels[row], slices[row]), source_hash)
    in_class = ranks(
        lambda row: labels[row], lambda row: (in_source[row], in_slice[row], source_hash(row))
    )
    return sorted(rows, key=lambda row: (in_class[row], source_hash(row)))


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=30
    ),
    st.data(),
)
def test_any_number_of_first_images_is_that_of_the_definition(images, data):
    """Where sources have several classes, lack slices, or have several images of a slice, too."""
    # given
    labels, source_numbers, slices = zip(*images, strict=True)
    sources = [f"source {number}" for number in source_numbers]
    image_ids = [f"image {row}" for row in range(len(images))]
    index = pa.table({"source_id": sources, "image_id": image_ids})
    dataset = PreparedDataset("d", None, np.array(labels), None, index, None)
    one_slice = [0] * len(images)
    first = data.draw(st.integers(1, len(images)))
    # when
    rows = balanced_order(dataset, first=first)
    rows_over_slices = balanced_over_slices(dataset, np.array(slices), first)
    # then
    order = reference_order(labels, sources, one_slice, image_ids)
    order_over_slices = reference_order(labels, sources, slices, image_ids)
    assert rows.tolist() == order[:first]
    assert rows_over_slices.tolist() == order_over_slices[:first]


@pytest.fixture
def hashed_ids(monkeypatch):
    """The ids that are hashed."""
    ids = []

    def recording(text):
        _, _, hashed_id = text.decode().partition("\0")
        ids.append(hashed_id)
        return sha256(text)

    monkeypatch.setattr(subsets, "sha256", recording)
    return ids


def test_where_each_source_has_one_image_of_each_slice_no_id_of_an_image_is_hashed(hashed_ids):
    """As in ImageNet-C, whose 3.75 million ids each job would hash."""
    images = dataset(50, variants=15)
    slices = np.tile(np.arange(15), 200)
    balanced_over_slices(images, slices, 300)
    assert set(hashed_ids) == set(source_ids(images))


def test_for_few_images_only_those_of_the_sources_that_they_are_from_are_hashed(hashed_ids):
    images = dataset(50, variants=15)
    first_images(images, 8)
    ids_of_images = set(hashed_ids) - set(source_ids(images))
    assert len(ids_of_images) == 8 * 15


@pytest.fixture
def corrupted_files(tmp_path):
    """A dataset `c` of 144 images, each with one of two corruptions and one of three severities."""
    folder = prepared(tmp_path / "c", sources(6), variants=6)
    index = pq.read_table(folder / "index.parquet")
    corruptions = ["fog", "fog", "fog", "blur", "blur", "blur"] * 24
    severities = [1, 2, 10] * 48
    index = index.append_column("corruption", [corruptions])
    index = index.append_column("severity", [severities])
    pq.write_table(index, folder / "index.parquet")
    return DatasetFiles("c", folder)


def test_a_view_has_a_share_of_a_dataset_of_each_combination_of_its_columns(corrupted_files):
    # given
    half_of_c = replace(VIEW, budget={"c": 0.5, "d": 3})
    columns = pq.read_table(corrupted_files.folder / "index.parquet").to_pandas()
    # when
    images = load_whole(corrupted_files, half_of_c)
    # then
    taken = columns.iloc[images.rows]
    counts = taken.groupby(["corruption", "severity", "label"]).size()
    assert len(taken) == 72, "half of 144"
    assert counts.tolist() == [3] * 24, "of six images each"


def test_a_smaller_budget_is_part_of_a_larger_share(corrupted_files):
    half_of_c = load_whole(corrupted_files, replace(VIEW, budget={"c": 0.5, "d": 3}))
    fewer = load_whole(corrupted_files, replace(VIEW, budget=24))
    assert len(fewer.rows) == 24
    assert set(fewer.rows) < set(half_of_c.rows)


def test_budgets_of_other_datasets_say_nothing(corrupted_files):
    images = load_whole(corrupted_files, replace(VIEW, budget={"d": 3, "e": 4}))
    assert images.rows is None


def test_a_budget_that_leaves_nothing_to_test_is_named(tmp_path):
    folder = prepared(tmp_path / "d", sources(5))
    files = DatasetFiles("d", folder, split=split_of(folder, fractions=FRACTIONS))
    small_view = replace(VIEW, budget=1)
    with pytest.raises(UserError, match="held_out: d: .* 1 image.*max_images_per_dataset: 1"):
        load_dataset(files, small_view, TEST)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    train=st.sampled_from([0.1, 0.5, 0.6]),
    select=st.sampled_from([0.1, 0.2, 0.3]),
)
def test_no_object_is_divided_and_the_splits_have_their_fractions(sizes, train, select):
    objects = {
        f"{author}/{n}": str(author) for author, size in enumerate(sizes) for n in range(size)
    }
    parts = assign_whole_objects(objects, {"train": train, "select": select}, {})
    assert parts.keys() == objects.keys()
    parts_of_object = collections.defaultdict(set)
    for source, part in parts.items():
        parts_of_object[objects[source]].add(part)
    assert all(len(parts) == 1 for parts in parts_of_object.values())
    # A split is off by less than the largest object.
    for part, fraction in ((TRAIN, train), (SELECT, select), (TEST, 1 - train - select)):
        count = list(parts.values()).count(part)
        assert abs(count - fraction * len(objects)) < max(sizes) + 1


def test_the_order_of_images_does_not_change_which_objects_are_trained_on():
    objects = {f"{author}/{n}": str(author) for author in range(20) for n in range(author % 4 + 1)}
    reversed_objects = dict(reversed(objects.items()))
    assert assign_whole_objects(objects, FRACTIONS, {}) == assign_whole_objects(
        reversed_objects, FRACTIONS, {}
    )


def test_an_object_keeps_the_split_that_one_of_its_images_has():
    objects = {"a/1": "ann", "a/2": "ann", "b/1": "bob", "b/2": "bob", "b/3": "bob"}
    inherited = {"a/1": TEST, "b/1": TRAIN, "b/2": TEST}
    parts = assign_whole_objects(objects, FRACTIONS, inherited)
    assert parts == {**inherited, "a/2": TEST, "b/3": LEFT_OUT}


def test_a_family_may_be_split_by_object_with_classes_that_training_does_not_see(tmp_path):
    # given eight images of four classes, of three authors
    folder = prepared(tmp_path / "photos", sources(2))
    index = pq.read_table(folder / "index.parquet")
    authors = pa.array(["ann", "ann", "ann", "ann", "bob", "bob", "cid", "cid"])
    pq.write_table(index.append_column("object_id", authors), folder / "index.parquet")
    view = replace(VIEW, split_by="object")
    table = folder / "split.parquet"
    # when
    split_dataset(
        files=DatasetFiles("photos", folder),
        view=view,
        fractions={"train": 0.5, "select": 0.25},
        earlier=[],
        table=table,
    )
    # then each author's photos are in one split, and training sees some of the classes
    parts = read_split(table)
    files = DatasetFiles("photos", folder, split=table)
    trained = load_dataset(files, view, TRAIN)
    assert 1 <= len(set(trained.labels)) < 4
    assert len(parts) == 8
    for author, numbers in {"ann": range(4), "bob": (4, 5), "cid": (6, 7)}.items():
        source_ids = index["source_id"].to_pylist()
        assert len({parts[source_ids[number]] for number in numbers}) == 1, author
