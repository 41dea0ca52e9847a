import io

import numpy as np
import pytest
import timm.data
from PIL import Image

from rib.data.images import decode, fit_on_white, resize_and_crop, without_border
from rib.data.layouts.iconify import render
from rib.geometry import Geometry
from rib.io import UserError


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (64, 64)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [0.875, 0.9, 1.0])
def test_photos_are_resized_and_cropped_as_timm_does_for_evaluation(size, interpolation, crop):
    image = noise(*size)
    transform = timm.data.create_transform(
        32, is_training=False, interpolation=interpolation, crop_pct=crop, mean=(0, 0, 0), std=(1, 1, 1)
    )
    expected = (transform(image).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
    assert (resize_and_crop(image, Geometry(32, crop, interpolation)) == expected).all()


def test_a_border_is_cut_off_on_each_side():
    image = noise(31, 17)
    assert (np.asarray(without_border(image, "x", 2)) == np.asarray(image)[2:-2, 2:-2]).all()
    assert without_border(image, "x", 2).size == (27, 13) and without_border(image, "x", 0).size == (31, 17)


def test_drawings_keep_their_aspect_and_a_white_margin():
    pixels = fit_on_white(Image.new("RGB", (40, 20), "black"), Geometry(100, 1.0, "bicubic"), margin=0.1)
    rows, columns = np.where(pixels[..., 0] == 0)
    assert (columns.min(), columns.max()) == (10, 89) and (rows.min(), rows.max()) == (30, 69)


def test_transparency_becomes_white():
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(buffer, "PNG")
    assert np.asarray(decode(buffer.getvalue(), "x")).min() == 255


def test_a_broken_image_is_named():
    with pytest.raises(UserError, match=r"the image set/a\.png can't be decoded"):
        decode(b"\x89PNG", "set/a.png")


def test_a_picture_that_other_programs_would_have_to_read_and_one_of_no_shape_are_refused():
    for size, kind, why in (((4, 4), "EPS", "it is none of JPEG, PNG"), ((1, 1001), "PNG", "it is 1 x 1001 pixels")):
        buffer = io.BytesIO()
        Image.new("L", size).save(buffer, kind)
        with pytest.raises(UserError, match=rf"the image x can't be decoded \({why}.*\); fetch its archive anew"):
            decode(buffer.getvalue(), "x")


ICONS = {
    "width": 10,
    "height": 10,
    "icons": {
        "left": {"body": '<path d="M0 0h5v10h-5z"/>'},
        "wide": {"body": '<path d="M0 0h20v10h-20z"/>', "width": 20},
        "blank": {"body": "<g/>"},
        "broken": {"body": "<g>"},
    },
    "aliases": {
        "right": {"parent": "left", "hFlip": True},
        "again": {"parent": "right", "hFlip": True},
        "top": {"parent": "left", "rotate": 1},
        "loop": {"parent": "loop"},
    },
}


def drawn(name, margin=0.1):
    return render(ICONS, name, 50, margin, "set")


def test_icons_fill_their_square_but_for_the_margin():
    rows, columns = np.where(drawn("left")[..., 0] == 0)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 24, 5, 44)
    rows, columns = np.where(drawn("wide")[..., 0] == 0)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 44, 15, 34)


def test_aliases_flip_and_turn():
    assert (drawn("right") == drawn("left")[:, ::-1]).all()
    assert (drawn("again") == drawn("left")).all()
    rows, columns = np.where(drawn("top")[..., 0] == 0)  # a quarter turn clockwise brings the left half to the top
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 44, 5, 24)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blank", r"set: the icon 'blank' can't be rendered \(nothing is visible\); exclude it"),
        ("broken", r"set: the icon 'broken' can't be rendered \(.*\); exclude it"),
        ("none", "set: there is no icon 'none'"),
        ("loop", "set: there is no icon 'loop'"),
    ],
)
def test_an_icon_that_cannot_be_drawn_is_named(name, message):
    with pytest.raises(UserError, match=message):
        drawn(name)
