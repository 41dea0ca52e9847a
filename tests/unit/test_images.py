import io
import struct
import zlib

import numpy as np
import pytest
import timm.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rib.base.errors import UserError
from rib.config.geometry import Geometry
from rib.config.schema import validated
from rib.data import images
from rib.data.images import CorruptImageError, decode, fit_on_white, resize_and_crop
from rib.data.layouts.iconify import render
from rib.data.svg import renderer
from rib.data.variables import DEFAULTS, PHOTO_MEGAPIXELS
from tiny.fuzz import fuzzed


def noise(width, height):
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (64, 64)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [0.875, 0.9, 1.0])
def test_photos_are_resized_and_cropped_as_timm_does_for_evaluation(size, interpolation, crop):
    image = noise(*size)
    transform = timm.data.create_transform(
        32,
        is_training=False,
        interpolation=interpolation,
        crop_pct=crop,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    expected = (transform(image).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
    assert (resize_and_crop(image, Geometry(32, crop, interpolation)) == expected).all()


def resized_whole(image, geometry):
    """What `resize_and_crop` gives, by resizing all of the image."""
    shorter = int(geometry.size / geometry.crop_pct)
    if geometry.crop_mode == "squash":
        size = (shorter, shorter)
    else:
        size = tuple(shorter * side // min(image.size) for side in image.size)
    resized = image.resize(size, images.RESAMPLING[geometry.interpolation])
    left, top = (round((side - geometry.size) / 2) for side in size)
    return np.asarray(resized.crop((left, top, left + geometry.size, top + geometry.size)))


def geometries(*crop_modes):
    return st.builds(
        Geometry,
        size=st.integers(1, 64),
        crop_pct=st.sampled_from([0.7, 0.875, 0.9, 0.965, 1.0]),
        interpolation=st.sampled_from(["bicubic", "bilinear"]),
        crop_mode=st.sampled_from(crop_modes),
    )


SIDES = st.tuples(st.integers(1, 80), st.integers(1, 80))


@fuzzed(300)
@given(SIDES, geometries("center", "squash"))
def test_ordinary_photos_have_the_pixels_of_the_whole_resized_photo(size, geometry):
    image = noise(*size)
    assert (resize_and_crop(image, geometry) == resized_whole(image, geometry)).all()


@fuzzed(600)
@given(
    SIDES | st.tuples(st.integers(1, 3), st.integers(1, 900)), geometries("center"), st.booleans()
)
def test_what_is_resized_for_a_crop_alone_differs_by_rounding_only(size, geometry, turned):
    """Black and white noise, in which filters overshoot.

    A shift of a hundredth pixel is seen in it.
    """
    image = noise(*(reversed(size) if turned else size)).point(lambda value: 255 * (value > 127))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MOST_RESIZED_PIXELS", 0)
        cropped_first = resize_and_crop(image, geometry).astype(int)
    whole = resized_whole(image, geometry).astype(int)
    assert np.abs(cropped_first - whole).max() <= 2  # each side is rounded once


@pytest.mark.attack("memory")
@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (2, 1999), (3000, 3)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_of_a_narrow_photo_only_what_the_crop_keeps_is_resized(monkeypatch, size, interpolation):
    pixels, resize = [], Image.Image.resize

    def counted(image, size, *arguments):
        pixels.append(max(size[0] * size[1], size[0] * image.height, image.width * size[1]))
        return resize(image, size, *arguments)

    monkeypatch.setattr(Image.Image, "resize", counted)
    assert resize_and_crop(noise(*size), Geometry(1024, 0.875, interpolation)).shape == (
        1024,
        1024,
        3,
    )
    assert sum(pixels) <= 2 * 1024**2


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_border_is_cut_off_on_each_side():
    image = noise(31, 17)
    assert (np.asarray(decode(encoded(image), "x", 2)) == np.asarray(image)[2:-2, 2:-2]).all()
    assert decode(encoded(image), "x").size == (31, 17)


def test_drawings_keep_their_aspect_and_a_white_margin():
    pixels = fit_on_white(
        Image.new("RGB", (40, 20), "black"), Geometry(100, 1.0, "bicubic"), margin=0.1
    )
    rows, columns = np.where(pixels[..., 0] == 0)
    assert (columns.min(), columns.max()) == (10, 89) and (rows.min(), rows.max()) == (30, 69)


def test_transparency_becomes_white():
    assert np.asarray(decode(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0))), "x")).min() == 255


def png_of(width, height):
    """A PNG of one pixel whose header states other sides."""
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def gif_of(width, height):
    """A GIF whose first frame is larger than its screen, which decoders enlarge."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "GIF"))
    place = data.index(b",\0\0\0\0\1\0\1\0")
    data[place + 5 : place + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_of(width, height):
    data = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.attack("memory")
@pytest.mark.parametrize("made", [png_of, gif_of, bmp_of])
@pytest.mark.parametrize(
    "size", [(20_000, 5_001), (65_000, 65_000)], ids=["just above", "far above"]
)
def test_a_photo_of_too_many_pixels_is_refused_by_its_header(peak, made, size):
    data = made(*size)
    with pytest.raises(
        CorruptImageError, match=rf"set/a\.png .*{size[0]} x {size[1]} .*limits\.photo_megapixels"
    ):
        decode(data, "set/a.png")
    assert peak() < 1 << 22


def test_limits_outside_of_snakemake_are_the_defaults_of_config():
    limits = validated({}, "config", "config.yaml")["limits"]
    assert {f"RIB_{name.upper()}": limit for name, limit in limits.items()} == DEFAULTS


def test_the_limit_of_pixels_is_a_setting(monkeypatch):
    data = encoded(Image.new("1", (1500, 2000)))
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "3")
    assert decode(data, "x").size == (1500, 2000)
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    with pytest.raises(CorruptImageError):
        decode(data, "x")


BROKEN, POSTSCRIPT, LINE = (
    b"\x89PNG",
    encoded(Image.new("L", (4, 4)), "EPS"),
    encoded(Image.new("L", (1, 1001))),
)


@pytest.mark.parametrize(
    ("data", "why"),
    [(BROKEN, ""), (POSTSCRIPT, "none of JPEG, PNG"), (LINE, "1 x 1001 pixels")],
    ids=["broken", "read by another program", "no shape"],
)
def test_an_image_that_is_not_decoded_is_named(data, why):
    with pytest.raises(UserError, match=rf"set/a\.png.*{why}"):
        decode(data, "set/a.png")


RAMP = np.linspace(0, 65535, 256).reshape(16, 16)
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of a TIFF


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_values_of_16_bits_keep_their_highest_eight(kind):
    image = Image.fromarray(RAMP.astype(np.uint16))
    assert (
        np.asarray(decode(encoded(image, kind), "x")) == (RAMP.astype(np.uint16) >> 8)[..., None]
    ).all()


UNKNOWN = {
    "floating-point numbers": (np.float32, {}),
    "integers of 32 bits": (np.int32, {}),
    "with a sign": (np.uint8, {SAMPLE_FORMAT: 2}),
    "not 16 bits from black": (np.uint16, {PHOTOMETRIC: 0}),
}


@pytest.mark.attack("data")
@pytest.mark.parametrize("why", UNKNOWN)
def test_a_tiff_whose_values_have_no_known_range_is_corrupt_and_not_black(why):
    """A TIFF from 0 to 255 or 65535 in a kind of numbers that has no range is refused.

    The sentence says what to do.
    """
    kind, tags = UNKNOWN[why]
    data = encoded(
        Image.fromarray((RAMP if kind != np.uint8 else RAMP / 257).astype(kind)),
        "TIFF",
        tiffinfo=tags,
    )
    with pytest.raises(CorruptImageError, match=rf"set/a\.tif .*{why}.*8 bits per channel"):
        decode(data, "set/a.tif")


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_of_several_frames_the_first_counts(kind):
    first, second = Image.new("L", (5, 4), 10), Image.new("L", (5, 4), 200)
    assert np.unique(
        decode(encoded(first, kind, save_all=True, append_images=[second]), "x")
    ).tolist() == [10]


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
    with renderer() as draw:
        return render(draw, ICONS, name, 50, margin, "set")


def test_icons_fill_their_square_but_for_the_margin():
    rows, columns = np.where(drawn("left")[..., 0] == 0)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 24, 5, 44)
    rows, columns = np.where(drawn("wide")[..., 0] == 0)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 44, 15, 34)


def test_aliases_flip_and_turn():
    assert (drawn("right") == drawn("left")[:, ::-1]).all()
    assert (drawn("again") == drawn("left")).all()
    rows, columns = np.where(
        drawn("top")[..., 0] == 0
    )  # a quarter turn clockwise brings the left half to the top
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 44, 5, 24)


@pytest.mark.parametrize(
    ("name", "why"),
    [("blank", "nothing is visible"), ("broken", ""), ("none", "no icon"), ("loop", "no icon")],
)
def test_an_icon_that_cannot_be_drawn_is_named(name, why):
    with pytest.raises(UserError, match=rf"set: (?=.*'{name}').*{why}"):
        drawn(name)
