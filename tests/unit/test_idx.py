"""The layout of idx files against files written with struct, and what it refuses."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.base.errors import UserError
from rib.config.geometry import Geometry
from rib.config.label_space import LabelSpace
from rib.data.images import DatasetSource
from rib.data.layouts import idx
from tiny.fuzz import fuzzed, outcome
from tiny.idx import SPACE, garments, idx_images, idx_labels, write_collection
from tiny.photos import GEOMETRY, run_prepare

SETTINGS = {"collection": "clothes", "part": "train", "first": 1, "last": 3, "border": 2}


def items(*paths, geometry=GEOMETRY, space=SPACE, exclude=(), **changed):
    dataset = DatasetSource("set", paths, space, geometry, exclude=exclude)
    return list(idx.items(dataset, **{**SETTINGS, **changed}))


def test_photos_and_labels_are_the_files_and_each_class_is_counted_by_itself(tmp_path):
    found = items(*write_collection(tmp_path))
    photos = garments(40)
    # Labels run from 9 to 0 in turn, so the counts 1 and 2 of each class are 10 to 29.
    assert [item.image_id for item in found] == [f"train/{n:05d}" for n in range(10, 30)]
    assert [item.label for item in found] == [9 - n % 10 for n in range(10, 30)]
    for number, item in enumerate(found, 10):
        assert item.source_id == item.object_id == f"clothes/train/{number:05d}"
        assert (item.picture[2:30, 2:30] == photos[number][..., np.newaxis]).all()
        assert item.picture.shape == (32, 32, 3) and item.picture.sum() == 3 * photos[number].sum()


def test_ranges_are_disjoint_whatever_the_order_of_labels(tmp_path):
    labels = np.random.default_rng(0).integers(0, 10, 300).tolist()
    photos, labels_path = write_collection(tmp_path, 300)
    labels_path.write_bytes(idx_labels(labels))
    seen = []
    for first in (0, 5, 10):
        found = items(photos, labels_path, first=first, last=first + 5)
        assert np.bincount([item.label for item in found]).tolist() == [5] * 10
        seen += [item.source_id for item in found]
    assert len(set(seen)) == len(seen) == 150
    ranks = idx.rank_in_class(np.array(labels, np.uint8))
    assert ranks.tolist() == [labels[:n].count(label) for n, label in enumerate(labels)]


def test_archives_are_found_by_name_in_any_order_and_some_photos_are_left_out(tmp_path):
    paths = [*write_collection(tmp_path, part="t10k"), *write_collection(tmp_path)]
    found = items(*paths[::-1], exclude=["train/00012"])
    assert len(found) == 19 and "train/00012" not in {item.image_id for item in found}
    assert items(*paths, part="t10k")[0].source_id == "clothes/t10k/00010"


def test_other_classes_and_a_larger_geometry(tmp_path):
    """Keys of the classes are labels, in any order."""
    space = LabelSpace(SPACE.keys[::-1], SPACE.indices, SPACE.names, 10)
    large = Geometry(size=64, crop_pct=1.0, interpolation="bicubic")
    found = items(*write_collection(tmp_path), space=space, geometry=large)
    assert [item.label for item in found] == [n % 10 for n in range(10, 30)]
    assert found[0].picture.shape == (64, 64, 3) and found[0].original.shape == (32, 32)


def test_a_list_chooses_among_the_photos_in_the_order_of_the_file(tmp_path):
    paths = write_collection(tmp_path)
    chosen = ("train/00023", "train/00011")
    index, _, _ = run_prepare(tmp_path, "idx", *paths, space=SPACE, only=chosen, **SETTINGS)
    assert index["image_id"].tolist() == sorted(chosen)
    with pytest.raises(UserError, match="set: .*no image 'train/00039' \\(1 of 2"):
        run_prepare(
            tmp_path, "idx", *paths, space=SPACE, only=("train/00039", chosen[0]), **SETTINGS
        )


PHOTOS = idx_images(garments(40))
LABELS = idx_labels([9 - n % 10 for n in range(40)])
HEADER = struct.Struct(">4I")


@pytest.mark.parametrize(
    ("photos", "labels", "message"),
    [
        (PHOTOS[:-1], LABELS, "train-images.* has 31375 bytes instead of the 31376"),
        (PHOTOS + b"x", LABELS, "train-images.* has 31377 bytes instead of the 31376"),
        (PHOTOS[:9], LABELS, "train-images.* ends within its header"),
        (b"", LABELS, "train-images.* ends within its header"),
        (b"\x1f\x8b" + PHOTOS[2:], LABELS, "train-images.* magic number 0x1f8b0803"),
        (LABELS + bytes(16), LABELS, "train-images.* magic number 0x00000801 instead of 0x0000080"),
        (HEADER.pack(0x803, 2**32 - 1, 28, 28) + bytes(9), LABELS, "train-images.* has 25 bytes"),
        (HEADER.pack(0x803, 40, 0, 28), LABELS, "train-images.*0 x 28"),
        (HEADER.pack(0x803, 40, 28, 4096), LABELS, "train-images.*28 x 4096"),
        (HEADER.pack(0x803, 0, 28, 28), LABELS, "train-images.* is empty"),
        (PHOTOS, LABELS[:-1], "train-labels.* has 47 bytes instead of the 48"),
        (PHOTOS, idx_labels([0] * 39), "train-labels.* has 39 labels.* 40 photos"),
        (PHOTOS, idx_labels([0] * 39 + [10]), "train-labels.* photo 39 has the label 10,.* 0, 1"),
        (PHOTOS, PHOTOS, "train-labels.* magic number 0x00000803"),
    ],
)
def test_another_file_is_refused_in_a_sentence_and_nothing_is_prepared(
    tmp_path, photos, labels, message
):
    paths = write_collection(tmp_path)
    for path, content in zip(paths, (photos, labels), strict=True):
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        run_prepare(tmp_path, "idx", *paths, space=SPACE, **SETTINGS)
    assert not (tmp_path / "index.parquet").exists() and not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rendition": "fog"}, "set: .*rendition 'fog'; choose .*plain, edges"),
        ({"border": -1}, "set: border is -1"),
        ({"border": 10**6}, "set: border is 1000000"),
        ({"first": 3, "last": 5}, "set: class 0 has 4 photos.* 3 to 5"),
        ({"first": 2, "last": 2}, "set: class 0 .* 2 to 2"),
        ({"first": -1}, "set: class 0 .* -1 to 3"),
        ({"part": "t10k"}, "set: .*t10k-images-idx3-ubyte .*train-images"),
        ({"space": LabelSpace(("0", "boot"), ((0,), (1,)), ("a", "b"), 2)}, "set: .*'boot'"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        items(*write_collection(tmp_path), **changed)


@fuzzed(20)
@given(st.data())
def test_any_file_is_read_or_refused(tmp_path_factory, data):
    paths = write_collection(tmp_path_factory.mktemp("idx"))
    path = data.draw(st.sampled_from(paths))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, 20))
    content[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    found = outcome(lambda: items(*paths))
    assert isinstance(found, list | str)
