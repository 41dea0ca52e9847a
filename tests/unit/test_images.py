import io

import numpy as np
import pytest
import timm.data
from PIL import Image

from rib.base.errors import UserError
from rib.config.geometry import Geometry
from rib.data.images import decode, fit_on_white, resize_and_crop
from rib.data.layouts.iconify import render


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


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_a_border_is_cut_off_on_each_side():
    image = noise(31, 17)
    assert (np.asarray(decode(encoded(image), "x", 2)) == np.asarray(image)[2:-2, 2:-2]).all()
    assert decode(encoded(image), "x").size == (31, 17)


def test_drawings_keep_their_aspect_and_a_white_margin():
    pixels = fit_on_white(Image.new("RGB", (40, 20), "black"), Geometry(100, 1.0, "bicubic"), margin=0.1)
    rows, columns = np.where(pixels[..., 0] == 0)
    assert (columns.min(), columns.max()) == (10, 89) and (rows.min(), rows.max()) == (30, 69)


def test_transparency_becomes_white():
    assert np.asarray(decode(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0))), "x")).min() == 255


BROKEN, POSTSCRIPT, LINE = b"\x89PNG", encoded(Image.new("L", (4, 4)), "EPS"), encoded(Image.new("L", (1, 1001)))


@pytest.mark.parametrize(
    ("data", "why"),
    [(BROKEN, ""), (POSTSCRIPT, "none of JPEG, PNG"), (LINE, "1 x 1001 pixels")],
    ids=["broken", "read by another program", "no shape"],
)
def test_an_image_that_is_not_decoded_is_named(data, why):
    with pytest.raises(UserError, match=rf"set/a\.png.*{why}"):
        decode(data, "set/a.png")


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
    ("name", "why"), [("blank", "nothing is visible"), ("broken", ""), ("none", "no icon"), ("loop", "no icon")]
)
def test_an_icon_that_cannot_be_drawn_is_named(name, why):
    with pytest.raises(UserError, match=rf"set: (?=.*'{name}').*{why}"):
        drawn(name)
