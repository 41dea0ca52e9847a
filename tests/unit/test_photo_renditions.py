"""Renditions of photos in whole numbers, and the layout that makes them."""

import numpy as np
import pytest
from PIL import Image

from rib.base.errors import UserError
from rib.data.photo_renditions import MIDDLE_GREY, RENDITIONS, grey
from tiny.data.photos import INDICES, WNIDS, jpeg, run_prepare, tar

RANDOM = ("drawing", "recoloured", "tilted")


def photo(side=96, seed=0):
    """A smooth picture of random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    enlarged = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(enlarged)


@pytest.mark.parametrize("name", RENDITIONS)
@pytest.mark.parametrize("side", [32, 97, 224])
def test_a_rendition_keeps_shape_and_type_and_depends_on_photo_and_seed_alone(name, side):
    picture = photo(side)
    made = RENDITIONS[name](picture, "seed")
    assert made.shape == picture.shape and made.dtype == np.uint8
    assert (made == RENDITIONS[name](picture.copy(), "seed")).all()
    assert (made != picture).any()


@pytest.mark.parametrize("name", RENDITIONS)
def test_another_seed_is_another_picture_if_something_is_random(name):
    first, second = (RENDITIONS[name](photo(), seed) for seed in ("a", "b"))
    assert (first != second).any() == (name in RANDOM)


def test_grey_is_the_luminance_that_pillow_has():
    picture = photo()
    by_pillow = np.asarray(Image.fromarray(picture).convert("L"))
    assert np.abs(grey(picture).astype(int) - by_pillow).max() <= 1


def test_edges_are_white_where_nothing_changes_and_darkest_at_the_largest_step():
    picture = np.full((64, 64, 3), 40, np.uint8)
    picture[:, 32:] = 240
    made = RENDITIONS["edges"](picture, "")
    assert (made[:, :30] == 255).all() and (made[:, 34:] == 255).all()
    assert made[:, 31:33].max() < 30


def test_a_cartoon_has_few_tones_of_each_channel():
    made = RENDITIONS["cartoon"](photo(128), "")
    assert all(len(np.unique(made[..., channel])) <= 6 for channel in range(3))


def test_a_tilted_photo_is_smaller_and_lies_on_grey():
    white = np.full((100, 100, 3), 255, np.uint8)
    for seed in "abcdef":
        made = RENDITIONS["tilted"](white, seed)
        assert (made[0, 0] == MIDDLE_GREY).all() and (made[50, 50] == 255).all()
        share = (made[..., 0] == 255).mean()
        assert 0.3 < share < 0.85  # sides of 60 to 90 %


def test_renditions_of_one_photo_have_its_source_and_other_pixels(tmp_path):
    files = {
        f"{WNIDS[index]}/{n}.png": jpeg(index, kind="PNG") for index in INDICES for n in (0, 1)
    }
    archive = tar(tmp_path / "a.tar", files)
    (tmp_path / "plain").mkdir()
    (tmp_path / "drawn").mkdir()
    plain, _, _ = run_prepare(tmp_path / "plain", "class_folders", archive)
    layout = {"layout": "class_folders", "settings": {}}
    made, pixels, _ = run_prepare(
        tmp_path / "drawn", "renditions_of", archive, photos=layout, rendition="drawing"
    )
    assert made["source_id"].tolist() == plain["source_id"].tolist()
    assert made["label"].tolist() == plain["label"].tolist()
    assert set(made["photo_sha256"]).isdisjoint(plain["photo_sha256"])
    # The paper's grain is the photo's own.
    assert (pixels[0] != pixels[1]).any()


def test_an_unknown_rendition_is_refused_by_name(tmp_path):
    archive = tar(tmp_path / "a.tar", {f"{WNIDS[index]}/1.png": jpeg(index) for index in INDICES})
    layout = {"layout": "class_folders", "settings": {}}
    with pytest.raises(UserError, match="oil.*rendition|rendition.*oil"):
        run_prepare(tmp_path, "renditions_of", archive, photos=layout, rendition="oil")
