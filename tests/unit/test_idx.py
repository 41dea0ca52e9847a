"""The layout of idx files against files written with struct, and what it refuses."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.catalog.label_space import LabelSpace
from rib.data.images import DatasetSource
from rib.data.layouts import idx
from rib.schema.geometry import Geometry
from tiny.data.idx import SIDE, SPACE, garments, idx_images, idx_labels, write_collection
from tiny.data.photos import GEOMETRY, run_prepare
from tiny.fuzz import fuzzed, outcome

IMAGES = 40  # of a collection
BORDER = 2  # in pixels
SETTINGS = {"collection": "clothes", "part": "train", "first": 1, "last": 3, "border": BORDER}
# Labels run from 9 to 0 in turn, so the counts 1 and 2 of each class are these photos.
CHOSEN = range(10, 30)
LABELS = [9 - number % 10 for number in range(IMAGES)]


def items_of(paths, geometry=GEOMETRY, space=SPACE, exclude=(), **settings):
    """The items of a collection.

    Args:
        settings: in place of `SETTINGS`.
    """
    dataset = DatasetSource("set", paths, space, geometry, exclude=exclude)
    return list(idx.items(dataset, **{**SETTINGS, **settings}))


def labels_of(items):
    """The labels of items."""
    return [item.label for item in items]


# What is read


def test_photos_and_labels_are_the_files_and_each_class_is_counted_by_itself(tmp_path):
    items = items_of(write_collection(tmp_path))
    photos = garments(IMAGES)
    assert [item.image_id for item in items] == [f"train/{number:05d}" for number in CHOSEN]
    assert labels_of(items) == [LABELS[number] for number in CHOSEN]
    for number, item in zip(CHOSEN, items, strict=True):
        assert item.source_id == item.object_id == f"clothes/train/{number:05d}"
        assert item.picture.shape == (SIDE + 2 * BORDER, SIDE + 2 * BORDER, 3)
        within_border = slice(BORDER, BORDER + SIDE)
        grey_photo = photos[number][..., np.newaxis]
        assert (item.picture[within_border, within_border] == grey_photo).all()
        assert item.picture.sum() == 3 * photos[number].sum(), "the border is black"


def test_ranges_are_disjoint_whatever_the_order_of_labels(tmp_path):
    # given
    labels = np.random.default_rng(0).integers(0, 10, 300).tolist()
    photos_file, labels_file = write_collection(tmp_path, 300)
    labels_file.write_bytes(idx_labels(labels))
    # when
    sources = []
    for first in (0, 5, 10):
        items = items_of([photos_file, labels_file], first=first, last=first + 5)
        images_of_class = np.bincount(labels_of(items))
        assert images_of_class.tolist() == [5] * 10
        sources += [item.source_id for item in items]
    # then
    assert len(sources) == 150
    assert len(set(sources)) == 150


def test_archives_are_found_by_name_in_any_order_and_some_photos_are_left_out(tmp_path):
    test_files = write_collection(tmp_path, part="t10k")
    training_files = write_collection(tmp_path, part="train")
    in_reverse_order = [*reversed(training_files), *reversed(test_files)]
    items = items_of(in_reverse_order, exclude=["train/00012"])
    assert len(items) == len(CHOSEN) - 1
    assert "train/00012" not in {item.image_id for item in items}

    first_item, *_ = items_of([*test_files, *training_files], part="t10k")
    assert first_item.source_id == "clothes/t10k/00010"


def test_other_classes_and_a_larger_geometry(tmp_path):
    """Keys of the classes are labels, in any order."""
    keys_from_9_to_0 = LabelSpace(SPACE.keys[::-1], SPACE.indices, SPACE.names, 10)
    large = Geometry(size=64, crop_pct=1.0, interpolation="bicubic")
    items = items_of(write_collection(tmp_path), space=keys_from_9_to_0, geometry=large)
    assert labels_of(items) == [9 - LABELS[number] for number in CHOSEN]
    first_item, *_ = items
    assert first_item.picture.shape == (64, 64, 3)
    assert first_item.original.shape == (32, 32)


def test_a_list_chooses_among_the_photos_in_the_order_of_the_file(tmp_path):
    paths = write_collection(tmp_path)
    listed = ("train/00023", "train/00011")
    index, _, _ = run_prepare(tmp_path, "idx", *paths, space=SPACE, only=listed, **SETTINGS)
    assert index["image_id"].tolist() == ["train/00011", "train/00023"]

    not_in_range = ("train/00039", "train/00023")
    with pytest.raises(UserError, match="set: .*no image 'train/00039' \\(1 of 2"):
        run_prepare(tmp_path, "idx", *paths, space=SPACE, only=not_in_range, **SETTINGS)


# What is refused

PHOTOS_FILE = idx_images(garments(IMAGES))
LABELS_FILE = idx_labels(LABELS)
MAGIC_OF_PHOTOS = 0x803


def header_of_photos(images, height, width):
    """The header of a file of photos."""
    return struct.pack(">4I", MAGIC_OF_PHOTOS, images, height, width)


@pytest.mark.parametrize(
    ("photos", "labels", "message"),
    [
        (PHOTOS_FILE[:-1], LABELS_FILE, "train-images.* has 31375 bytes instead of the 31376"),
        (PHOTOS_FILE[:9], LABELS_FILE, "train-images.* ends within its header"),
        (
            b"\x1f\x8b" + PHOTOS_FILE[2:],
            LABELS_FILE,
            "train-images.* magic number 0x1f8b0803",
        ),
        (
            header_of_photos(2**32 - 1, 28, 28) + bytes(9),
            LABELS_FILE,
            "train-images.* has 25 bytes",
        ),
        (header_of_photos(40, 0, 28), LABELS_FILE, "train-images.*0 x 28"),
        (header_of_photos(0, 28, 28), LABELS_FILE, "train-images.* is empty"),
        (PHOTOS_FILE, LABELS_FILE[:-1], "train-labels.* has 47 bytes instead of the 48"),
        (PHOTOS_FILE, idx_labels([0] * 39), "train-labels.* has 39 labels.* 40 images"),
        (
            PHOTOS_FILE,
            idx_labels([0] * 39 + [10]),
            "train-labels.* image 39 has the label 10,.* 0, 1",
        ),
    ],
)
def test_another_file_is_refused_in_a_sentence_and_nothing_is_prepared(
    tmp_path, photos, labels, message
):
    photos_file, labels_file = write_collection(tmp_path)
    photos_file.write_bytes(photos)
    labels_file.write_bytes(labels)
    with pytest.raises(UserError, match=message):
        run_prepare(tmp_path, "idx", photos_file, labels_file, space=SPACE, **SETTINGS)
    assert not (tmp_path / "index.parquet").exists()
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rendition": "fog"}, "set: .*rendition 'fog'; choose .*plain, edges"),
        ({"border": -1}, "set: border is -1"),
        ({"border": 10**6}, "set: border is 1000000"),
        ({"first": 3, "last": 5}, "set: class 0 has 4 images.* 3 to 5"),
        ({"first": -1}, "set: class 0 .* -1 to 3"),
        ({"part": "t10k"}, "set: .*t10k-images-idx3-ubyte .*train-images"),
        ({"space": LabelSpace(("0", "boot"), ((0,), (1,)), ("a", "b"), 2)}, "set: .*'boot'"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        items_of(write_collection(tmp_path), **changed)


@fuzzed(20)
@given(st.data())
def test_any_file_is_read_or_refused(tmp_path_factory, data):
    # given a file of which some bytes are others, more or fewer
    paths = write_collection(tmp_path_factory.mktemp("idx"))
    path = data.draw(st.sampled_from(paths))
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, 20))
    replaced_bytes = data.draw(st.integers(0, 3))
    content[start : start + replaced_bytes] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    # when, then
    items_or_message = outcome(lambda: items_of(paths))
    assert isinstance(items_or_message, list | str)
