"""Which photos are identical: by their pixels, not by their files."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_splits import dataset

from rib.data import identity
from rib.data.identity import (
    identical_images,
    identity_of,
    joined_ids,
    of_other_classes,
)
from rib.data.images import decode
from rib.data.subsets import held_back


def noise(width=31, height=17, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_copy_in_another_format_is_the_same_photo(kind):
    image = noise()
    assert identity_of(decode(saved(image, kind, **LOSSLESS[kind]), "x")) == identity_of(
        np.asarray(image)
    )


def test_grey_pixels_are_the_same_photo_with_one_channel_and_with_three():
    grey = noise(mode="L")
    assert identity_of(decode(saved(grey, "PNG"), "x")) == identity_of(
        decode(saved(grey.convert("RGB"), "PNG"), "x")
    )


def test_the_same_bytes_in_another_shape_are_another_photo():
    pixels = np.arange(2 * 6 * 3, dtype=np.uint8)
    shapes = [pixels.reshape(height, -1, 3) for height in (1, 2, 3, 4, 6, 12)]
    assert len({identity_of(shape) for shape in shapes}) == len(shapes)


def test_one_changed_value_makes_another_photo():
    pixels = np.asarray(noise()).copy()
    before = identity_of(pixels)
    pixels[16, 30, 2] ^= 1
    assert identity_of(pixels) != before


def test_the_identity_does_not_depend_on_how_many_pixels_are_hashed_at_once(monkeypatch):
    whole = identity_of(noise())
    for pixels in (1, 31, 100):
        monkeypatch.setattr(identity, "STRIP", pixels)
        assert identity_of(noise()) == whole


def test_ids_of_identical_photos_are_joined_also_through_others():
    ids = pa.array(["d", "b", "b", "c", "a", "e", "f"])
    photos = pa.array(["1", "1", "2", "2", "3", "4", "5"])
    assert joined_ids(ids, photos) == {"c": "b", "d": "b"}


@pytest.mark.parametrize("seed", range(20))
def test_joined_ids_are_the_connected_ones(seed):
    """Against sets that are merged until nothing changes."""
    rng = np.random.default_rng(seed)
    ids = [f"s{number}" for number in rng.integers(0, 12, 25)]
    photos = [f"p{number}" for number in rng.integers(0, 30, 25)]
    groups = [set(pair) for pair in zip(ids, photos, strict=True)]
    while touching := [pair for pair in itertools.combinations(groups, 2) if pair[0] & pair[1]]:
        one, other = touching[0]
        groups = [group for group in groups if group not in (one, other)] + [one | other]
    expected = {}
    for group in groups:
        first, *others = sorted(name for name in group if name.startswith("s"))
        expected |= dict.fromkeys(others, first)
    assert joined_ids(pa.array(ids), pa.array(photos)) == expected


def test_identical_images_of_two_classes_are_counted_as_such():
    photos = pa.array(["1", "2", "1", "3", "3", "5", "4"])
    assert identical_images(photos).tolist() == [True, False, True, True, True, False, False]
    labels = np.array([0, 0, 0, 1, 2, 5, 7])
    assert of_other_classes(photos, labels).tolist() == [
        False,
        False,
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_images_held_back_to_choose_by_are_not_trained_on_under_another_name(tmp_path, share):
    """Given two copies of each photo as sources of their own, both are held back or none."""
    whole = dataset(10)
    ids = whole.index["source_id"]
    photos = [f"photo{number // 2}" for number in range(len(ids))]
    index_file = tmp_path / "index.parquet"
    pq.write_table(pa.table({"source_id": ids, "photo_sha256": photos}), index_file)
    held = held_back(replace(whole, index_file=index_file), share)
    assert held.any() and not held.all() and (held[::2] == held[1::2]).all()
