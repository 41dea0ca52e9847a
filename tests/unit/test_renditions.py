"""Renditions of small grey photos in whole numbers."""

import numpy as np
import pytest

from rib.data.renditions import RENDITIONS
from tiny.data.idx import garments
from tiny.data.rendered import PINNED, digests

PHOTOS = np.pad(garments(20), ((0, 0), (2, 2), (2, 2)))


def rendered(name):
    """Renditions of all photos as (n, 32, 32, 3)."""
    pictures = []
    for number, photo in enumerate(PHOTOS):
        picture = RENDITIONS[name](photo, str(number))
        assert picture.dtype == np.uint8 and picture.shape[:2] == photo.shape
        pictures.append(np.broadcast_to(picture.reshape(32, 32, -1), (32, 32, 3)))
    return np.array(pictures)


def test_the_bytes_are_the_same_everywhere():
    """Of corruptions and layouts, too; the test of the oldest versions is in test_oldest.py."""
    assert digests() == PINNED


def test_renditions_differ_from_the_photos_and_from_one_another():
    pictures = {name: rendered(name).astype(float) for name in RENDITIONS}
    for name, some in pictures.items():
        for other_name, others in pictures.items():
            assert name == other_name or np.abs(some - others).mean() > 12, (name, other_name)
    assert (pictures["plain"] == PHOTOS[..., np.newaxis]).all()


@pytest.mark.parametrize("name", ["cartoon", "drawing", "background", "tilted", "recoloured"])
def test_what_is_random_depends_on_the_seed(name):
    first, again, other = (RENDITIONS[name](PHOTOS[3], seed) for seed in ("a", "a", "b"))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("name", RENDITIONS)
@pytest.mark.parametrize("photo", [np.zeros((32, 32)), np.full((28, 30), 255), np.eye(8) * 99])
def test_any_photo_has_every_rendition(name, photo):
    picture = RENDITIONS[name](photo.astype(np.uint8), "a")
    assert picture.dtype == np.uint8 and picture.shape[:2] == photo.shape


def test_edges_are_black_on_white_and_one_pixel_wide():
    box = np.zeros((32, 32), np.uint8)
    box[8:24, 8:24] = 200
    lines = RENDITIONS["edges"](box, "")
    assert set(np.unique(lines)) == {0, 255}
    for line in (lines[16], lines[:, 16]):
        assert (line == 0).sum() == 2 and abs(np.flatnonzero(line == 0) - [8, 23]).max() <= 1
    assert (RENDITIONS["edges"](np.full((32, 32), 90, np.uint8), "") == 255).all()


def test_a_cartoon_has_black_and_four_colours_at_most():
    for number, photo in enumerate(PHOTOS):
        picture = RENDITIONS["cartoon"](photo, str(number))
        assert 3 <= len(np.unique(picture.reshape(-1, 3), axis=0)) <= 5


def test_the_background_is_behind_bright_pixels_and_in_place_of_black():
    picture = RENDITIONS["background"](PHOTOS[0], "a").astype(int)
    bright, black = PHOTOS[0] >= 43, PHOTOS[0] == 0
    assert (picture[bright] == PHOTOS[0][bright][:, np.newaxis]).all()
    assert picture[black].std() > 30


def test_a_tilted_object_stays_in_the_picture_and_becomes_smaller():
    disc = ((np.mgrid[:32, :32] - 15.5) ** 2).sum(axis=0) < 14**2
    for seed in range(50):
        picture = RENDITIONS["tilted"](disc.astype(np.uint8) * 255, str(seed)) > 127
        assert 0.2 * disc.sum() < picture.sum() < 0.68 * disc.sum()
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert not border.any()


def test_recolouring_keeps_what_differs_apart():
    """Equal greys have equal colours, and the object differs from what was black."""
    photo = np.zeros((32, 32), np.uint8)
    photo[:, 16:] = 128
    for seed in range(30):
        picture = RENDITIONS["recoloured"](photo, str(seed)).astype(int)
        assert (picture[:, :16] == picture[0, 0]).all() and (
            picture[:, 16:] == picture[0, 16]
        ).all()
        assert abs(picture[0, 0].sum() - picture[0, 16].sum()) > 0
        assert np.abs(picture[0, 0] - picture[0, 16]).max() > 20
