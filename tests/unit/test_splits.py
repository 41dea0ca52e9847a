"""Splits and nested subsets.

They are the same for a source image everywhere, balanced, and one inside the other.
"""

import collections
import json
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.config.label_space import LabelSpace
from rib.data.identity import PHOTO
from rib.data.prepared import PreparedDataset
from rib.data.split_dataset import EarlierSplit, split_dataset
from rib.data.splits import LEFT_OUT, SELECT, TEST, TRAIN, assign_splits, read_split
from rib.data.subsets import balanced_order, first_images, subset
from rib.data.view import DatasetFiles, load_dataset, load_proxy, load_whole
from tiny.changed import replace
from tiny.training import VIEW

FRACTIONS = {"train": 0.6, "select": 0.2}
PARTS = (TRAIN, SELECT, TEST)


def dataset(per_class, variants=1):
    return of_labels(np.repeat(np.arange(4), per_class), variants)


def of_labels(labels, variants=1):
    """A dataset with so many images of each source, as ImageNet-C has of each photo."""
    sources = [
        f"val/{label}/{number}" for number, label in enumerate(labels) for _ in range(variants)
    ]
    images = [f"{source}/{variant % variants}" for variant, source in enumerate(sources)]
    labels = np.repeat(labels, variants)
    space = LabelSpace(tuple("abcd"), tuple((i,) for i in range(4)), tuple("abcd"))
    index = pa.table({"source_id": sources, "image_id": images, "label": labels})
    return PreparedDataset("d", np.arange(len(labels)), labels, None, index, space)


def prepared(folder, labels, variants=1, photos=None):
    """A dataset as a prepare job writes it: class by source.

    Pixels, which no split looks at, have one value.

    `photos` are the identities of its images; without them each is another photo.
    """
    whole = of_labels(np.array(list(labels.values())), variants)
    whole = replace(
        whole, index=whole.index.set_column(0, "source_id", [np.repeat(list(labels), variants)])
    )
    folder.mkdir(parents=True)
    photos = photos or [f"{folder.name}/photo {row}" for row in range(len(whole.labels))]
    pq.write_table(whole.index.append_column(PHOTO, [photos]), folder / "index.parquet")
    np.save(folder / "images.npy", np.zeros((len(whole.labels), 1, 1, 3), np.uint8))
    (folder / "classes.json").write_text(json.dumps(whole.space.to_json()))
    return folder


def split_of(folder, earlier=(), budget="all", fractions=FRACTIONS, same_sources=True):
    """The split of a prepared dataset, after those of others.

    The others have the same source images or not.
    """
    files, view, table = (
        DatasetFiles(folder.name, folder),
        replace(VIEW, budget=budget),
        folder / "split.parquet",
    )
    before = [EarlierSplit(path, path.with_name("index.parquet"), same_sources) for path in earlier]
    split_dataset(files=files, view=view, fractions=fractions, earlier=before, table=table)
    return table


def sources(n, classes=4, prefix="s"):
    """So many sources of each class, by id."""
    return {f"{prefix}{label}/{number}": label for label in range(classes) for number in range(n)}


def tally(labels, parts):
    """(classes, 3) sources of each class and part."""
    found = collections.Counter((label, parts[source]) for source, label in labels.items())
    return np.array(
        [[found[label, name] for name in PARTS] for label in sorted(set(labels.values()))]
    )


def off(counts, fractions):
    """How many images each entry is off what was asked for."""
    wanted = [fractions["train"], fractions["select"], 1 - sum(fractions.values())]
    return np.abs(counts - counts.sum(axis=-1, keepdims=True) * np.array(wanted))


percent = st.integers(5, 90)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), percent, percent)
def test_each_class_and_the_whole_have_their_fractions_within_one_image(sizes, train, select):
    assume(
        train + select < 100 and min(sizes) * train >= 100
    )  # so that each class can have a training image
    fractions = {"train": train / 100, "select": select / 100}
    labels = {f"s{label}/{i}": label for label, n in enumerate(sizes) for i in range(n)}
    counts = tally(labels, assign_splits(labels, fractions, {}))
    assert (counts.sum(axis=1) == sizes).all() and (counts[:, 0] > 0).all()
    assert off(counts, fractions).max() < 1 and off(counts.sum(axis=0), fractions).max() < 1


@given(st.lists(st.integers(1, 3), min_size=4, max_size=12))
def test_totals_take_no_class_its_last_training_image(sizes):
    labels = {f"s{label}/{i}": label for label, n in enumerate(sizes) for i in range(n)}
    counts = tally(labels, assign_splits(labels, FRACTIONS, {}))
    assert (counts[:, 0] > 0).all() and off(counts, FRACTIONS).max() < 1


def test_a_thousand_classes_of_29_are_not_all_rounded_alike():
    counts = tally(labels := sources(29, 1000), assign_splits(labels, FRACTIONS, {}))
    assert set(counts[:, 0]) == {17, 18} and counts[:, 1:].min() == 5 and counts[:, 1:].max() == 6
    assert counts.sum(axis=0).tolist() == [17400, 5800, 5800]


@given(st.permutations(range(60)))
def test_the_order_of_rows_says_nothing(order):
    rows = list(sources(15).items())
    assert assign_splits(dict(rows[i] for i in order), FRACTIONS, {}) == assign_splits(
        dict(rows), FRACTIONS, {}
    )


@pytest.mark.parametrize("seed", range(30))
def test_a_source_is_in_one_part_in_all_datasets_of_its_group(seed):
    """Three datasets hold any of the sources, the last among classes of its own.

    What is new makes up for what is not.
    """
    rng = np.random.default_rng(seed)
    classes, holders = rng.integers(0, 4, 90), rng.integers(0, 8, 90)
    datasets = [
        {f"s{i}": int(classes[i]) // (1 + d // 2) for i in range(90) if holders[i] >> d & 1}
        for d in range(3)
    ]
    known, fitted = {}, 0
    for labels in datasets:
        parts = assign_splits(labels, FRACTIONS, known)
        assert parts.keys() == labels.keys()
        assert all(parts[source] == known.get(source, parts[source]) for source in labels)
        for label in set(labels.values()):
            own = {source: label for source, of in labels.items() if of == label}
            came = collections.Counter(known.get(source) for source in own)
            if all(
                came[name] <= share * len(own)
                for name, share in zip(PARTS, (0.6, 0.2, 0.2), strict=True)
            ):
                fitted += 1
                assert off(tally(own, parts), FRACTIONS).max() < 1
        known |= parts
    assert fitted >= 4


def test_another_dataset_changes_no_split_before_it_and_the_same_sources_are_split_as_alone(
    tmp_path,
):
    val, copy = (
        prepared(tmp_path / "val", sources(29)),
        prepared(tmp_path / "copy", sources(29), variants=3),
    )
    some = dict(list(sources(29).items())[::2])
    more = prepared(tmp_path / "more", some | sources(20, prefix="n"))
    first = split_of(val)
    alone = first.read_bytes()
    second = split_of(copy, [first])
    third = split_of(more, [first, second])
    assert split_of(val).read_bytes() == alone
    parts = [read_split(path) for path in (first, second, third)]
    assert parts[1] == parts[0] == read_split(split_of(copy)) and set(some) < set(parts[0])
    assert all(parts[2][source] == parts[0][source] for source in some)
    # of 34 or 35 sources of a class 14 or 15 came with their part, and the 20 others make up for
    # them
    assert off(tally(some | sources(20, prefix="n"), parts[2]), FRACTIONS).max() < 1
    table = pq.read_table(second).to_pandas()
    assert set(table["images"]) == {3} and list(table["source_id"]) == sorted(table["source_id"])


@pytest.mark.parametrize("budget", [20, 57, 90])
def test_a_budget_is_split_as_evenly(tmp_path, budget):
    """What the budget takes of a set is split like a whole one.

    Another set's sources agree with it.
    """
    val, copy = (
        prepared(tmp_path / "val", sources(29)),
        prepared(tmp_path / "copy", sources(29), variants=3),
    )
    first = split_of(val, budget=budget)
    second = split_of(copy, [first], budget=budget)
    parts = [read_split(path) for path in (first, second)]
    labels = {source: label for source, label in sources(29).items() if source in parts[0]}
    assert len(parts[0]) == budget and off(tally(labels, parts[0]), FRACTIONS).max() < 1
    assert parts[1].keys() == parts[0].keys() and parts[1] == parts[0]
    smaller = split_of(prepared(tmp_path / "smaller", sources(29)), [split_of(val)], budget=budget)
    labels = {
        source: label for source, label in sources(29).items() if source in read_split(smaller)
    }
    assert off(tally(labels, read_split(smaller)), FRACTIONS).max() < 1.5, (
        "parts alternate in the budget's order"
    )


def test_splits_are_disjoint_and_complete_and_of_a_proxy_the_train_split_is_taken(tmp_path):
    folder = prepared(tmp_path / "val", sources(29))
    files = DatasetFiles("val", folder)
    whole, split = load_whole(files, VIEW), replace(files, split=split_of(folder))
    parts = [load_dataset(split, VIEW, which).sources[1] for which in PARTS]
    assert sum(map(len, parts)) == 4 * 29 and set.union(*map(set, parts)) == set(whole.sources[1])
    assert (
        load_dataset(files, VIEW, TRAIN).sources[1]
        == load_proxy(files, VIEW).sources[1]
        == whole.sources[1]
    )
    assert load_proxy(split, VIEW).sources[1] == parts[0]


def parts_of_photos(*folders, budget="all"):
    """The parts in which each photo is, over datasets that were split."""
    found = collections.defaultdict(set)
    for folder in folders:
        parts = read_split(folder / "split.parquet")
        photos = pq.read_table(folder / "index.parquet")[PHOTO].to_pylist()
        images = load_whole(DatasetFiles(folder.name, folder), replace(VIEW, budget=budget))
        rows = range(len(photos)) if images.rows is None else images.rows
        for source, row in zip(images.index["source_id"].to_pylist(), rows, strict=True):
            found[photos[row]].add(parts[source])
    return found


def test_two_files_with_one_photo_are_in_one_part(tmp_path):
    """A dataset has each photo twice under two names.

    When it is split, no photo is in two parts, as of single ones.
    """
    labels = sources(40)
    twice = [f"photo {number // 2}" for number in range(len(labels))]
    folder = prepared(tmp_path / "twice", labels, photos=twice)
    table = pq.read_table(split_of(folder)).to_pandas()
    assert {len(parts) for parts in parts_of_photos(folder).values()} == {1}
    assert list(table["source_id"]) == sorted(labels) and table["images"].sum() == len(labels)
    assert off(tally(labels, read_split(folder / "split.parquet")), FRACTIONS).max() < 2


def test_a_dataset_without_identical_photos_is_split_as_by_its_ids_alone(tmp_path):
    labels = sources(29)
    table = pq.read_table(split_of(prepared(tmp_path / "a", labels)))
    assert table.column_names == ["source_id", "part", "images"]
    assert dict(zip(*table.select([0, 1]).to_pydict().values(), strict=True)) == assign_splits(
        labels, FRACTIONS, {}
    )


def test_a_photo_of_an_earlier_dataset_keeps_its_part_under_any_name(tmp_path):
    """Two datasets without common ids share photos.

    The first decides, and knows nothing of the second.
    """
    first = prepared(tmp_path / "first", sources(20), photos=[f"photo {n}" for n in range(80)])
    alone = split_of(first).read_bytes()
    of_both = [f"photo {n}" if n % 2 else f"own {n}" for n in range(80)]
    second = prepared(tmp_path / "second", sources(20, prefix="other"), photos=of_both)
    table = split_of(second, [first / "split.parquet"], same_sources=False)
    assert {len(parts) for parts in parts_of_photos(first, second).values()} == {1}
    assert off(tally(sources(20, prefix="other"), read_split(table)), FRACTIONS).max() < 1
    assert split_of(first).read_bytes() == alone


def test_equal_ids_of_datasets_with_other_sources_mean_nothing(tmp_path):
    first = prepared(tmp_path / "first", sources(29))
    second = prepared(tmp_path / "second", sources(29) | sources(3, prefix="n"))
    alone = split_of(second).read_bytes()
    assert split_of(second, [split_of(first)], same_sources=False).read_bytes() == alone


@pytest.mark.parametrize("budget", ["all", 50])
@pytest.mark.parametrize("seed", range(20))
def test_no_photo_is_trained_on_and_tested_in_any_datasets(tmp_path, seed, budget):
    """Three datasets have any photos under any ids.

    The first and the last have the same source images.
    """
    rng = np.random.default_rng(seed)
    folders, labels = [], sources(30)
    for number in range(3):
        photos = [f"photo {photo}" for photo in rng.integers(0, 300, 2 * len(labels))]
        folders.append(prepared(tmp_path / str(number), labels, variants=2, photos=photos))
    tables = []
    for folder in folders:
        before = [
            EarlierSplit(path, path.with_name("index.parquet"), path.parent == folders[0])
            for path in tables
        ]
        tables.append(folder / "split.parquet")
        view = replace(VIEW, budget=budget)
        files = DatasetFiles(folder.name, folder)
        split_dataset(files=files, view=view, fractions=FRACTIONS, earlier=before, table=tables[-1])
    used = [parts - {LEFT_OUT} for parts in parts_of_photos(*folders, budget=budget).values()]
    assert max(map(len, used)) == 1
    first, last = read_split(tables[0]), read_split(tables[2])
    assert all(last[source] in (first[source], LEFT_OUT) for source in first.keys() & last.keys())


def test_a_source_image_that_links_a_trained_and_a_tested_one_is_left_out(tmp_path, caplog):
    """A source with two images is in no part.

    One of them is trained on, the other tested elsewhere.
    """
    ids = list(sources(20))
    first = prepared(
        tmp_path / "first", sources(20), photos=[f"photo of {source}" for source in ids]
    )
    parts = read_split(split_of(first))
    trained, tested = (
        next(source for source in ids if parts[source] == name) for name in (TRAIN, TEST)
    )
    photos = [f"photo of {trained}", f"photo of {tested}", *(f"own {n}" for n in range(38))]
    second = prepared(tmp_path / "second", sources(5, prefix="o"), variants=2, photos=photos)
    found = read_split(split_of(second, [first / "split.parquet"], same_sources=False))
    assert [source for source, part in found.items() if part == LEFT_OUT] == ["o0/0"]
    assert "second: left out 1 source images" in caplog.text
    split = DatasetFiles("second", second, split=second / "split.parquet")
    images = sum(len(load_dataset(split, VIEW, name).labels) for name in PARTS)
    assert images == 40 - 2


def test_an_index_that_does_not_know_identical_photos_is_not_split(tmp_path):
    folder = prepared(tmp_path / "old", sources(29))
    pq.write_table(
        pq.read_table(folder / "index.parquet").drop_columns([PHOTO]), folder / "index.parquet"
    )
    with pytest.raises(UserError, match=r"old/index\.parquet .*snakemake --forcerun prepare"):
        split_of(folder)
    assert not (folder / "split.parquet").exists()


def test_a_budget_takes_each_photo_before_any_twice(tmp_path):
    """Given each photo twice, when half of the images are taken, then no photo is taken twice."""
    folder = prepared(
        tmp_path / "twice", sources(10), photos=[f"photo {n // 2}" for n in range(40)]
    )
    taken = load_whole(DatasetFiles("twice", folder), replace(VIEW, budget=20))
    assert len({row // 2 for row in taken.rows}) == 20


def test_a_part_knows_its_images():
    whole = dataset(50)
    chosen = whole.take(np.arange(3, 200, 7))
    assert [whole.sources[1][row] for row in chosen.rows] == chosen.sources[1]
    assert (whole.labels[chosen.rows] == chosen.labels).all()
    again = chosen.take(np.array([1, 3]))
    assert [whole.sources[1][row] for row in again.rows] == again.sources[1]


@pytest.mark.parametrize("n, which", [(1, "test"), (3, "train")])
def test_a_part_without_images_and_a_class_without_training_images_are_refused(tmp_path, n, which):
    folder = prepared(tmp_path / "d", sources(n))
    table = split_of(
        folder, fractions=FRACTIONS if which == "test" else {"train": 0.1, "select": 0.2}
    )
    with pytest.raises(UserError, match=rf"held_out: d: .* the {which} split"):
        load_dataset(DatasetFiles("d", folder, split=table), VIEW, which)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 2**64 - 1), st.data())
def test_subsets_are_nested_and_classes_are_balanced(labels, seed, data):
    labels = np.sort(np.array(labels))
    order = balanced_order(of_labels(labels), seed)
    assert sorted(order) == list(range(len(labels)))
    n = data.draw(st.integers(1, len(labels)))
    counts = collections.Counter(labels[order[:n]])
    for label, available in collections.Counter(labels).items():
        assert counts[label] == available or counts[label] >= max(counts.values()) - 1


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 9), st.data())
def test_a_smaller_subset_of_a_seed_is_part_of_its_larger_ones(labels, seed, data):
    whole = of_labels(np.sort(np.array(labels)))
    small = data.draw(st.integers(1, len(labels) - 1))
    large = data.draw(st.integers(small, len(labels)))
    images_of_small = set(subset(whole, str(small), seed).sources[1])
    assert images_of_small <= set(subset(whole, str(large), seed).sources[1])


def test_each_seed_draws_other_images():
    whole = dataset(50)
    draws = [frozenset(subset(whole, "8", seed).sources[1]) for seed in range(20)]
    assert len(set(draws)) == 20
    seen = [source for draw in draws for source in draw]
    assert len(set(seen)) > 100, "draws of 160 images overlap no more than by chance"


def test_seed_0_draws_what_all_seeds_drew_in_earlier_versions():
    """The order of budgets, too, which is written out here: hashes of class and source id."""
    whole = dataset(5, variants=2)
    sources = whole.index["source_id"].to_pylist()
    images = whole.index["image_id"].to_pylist()

    def hashed(text):
        return sha256(f"order\0{text}".encode()).digest()[:8]

    images_of_source = collections.defaultdict(list)
    for image in range(len(images)):
        images_of_source[sources[image]].append(image)
    rank = {}
    for label in range(4):
        keys = []
        for source, members in images_of_source.items():
            if whole.labels[members[0]] == label:
                ordered = sorted(members, key=lambda image: hashed(images[image]))
                keys += [(n, hashed(source), image) for n, image in enumerate(ordered)]
        rank |= {image: place for place, (*_, image) in enumerate(sorted(keys))}
    expected = sorted(rank, key=lambda image: (rank[image], hashed(sources[image])))
    assert balanced_order(whole, 0).tolist() == expected
    assert first_images(whole, 9).rows.tolist() == sorted(expected[:9])


def test_sizes_are_numbers_or_fractions():
    whole = dataset(10)
    small, half = subset(whole, "6", seed=3), subset(whole, "0.5", seed=3)
    assert (
        len(small.labels) == 6
        and len(half.labels) == 20
        and set(small.sources[1]) < set(half.sources[1])
    )
    assert subset(whole, "all", seed=3) is whole
    for size in ("41", "0.001"):
        with pytest.raises(UserError, match=f"train_subset {size}: d has 40 images"):
            subset(whole, size, seed=3)


def test_a_budget_takes_other_sources_before_another_image_of_one():
    """Of ImageNet-C's many images of a photo one is taken first.

    It is one of the photos that other sets' budgets take.
    """
    many, plain = dataset(6, variants=5), dataset(6)
    order = balanced_order(many)
    assert sorted(order) == list(range(120))
    first = many.take(np.sort(order[:24]))
    assert sorted(first.sources[1]) == sorted(plain.sources[1]), "each source once"
    chosen = many.take(np.sort(order[:8]))
    assert collections.Counter(chosen.labels) == dict.fromkeys(range(4), 2)
    assert set(chosen.sources[1]) == set(plain.take(np.sort(balanced_order(plain)[:8])).sources[1])
    variants = {image.rsplit("/", 1)[1] for image in first.index["image_id"].to_pylist()}
    assert len(variants) > 2, "which image of a source comes first is random"
