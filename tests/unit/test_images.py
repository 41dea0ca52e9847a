"""Images are decoded within limits, resized and cropped, and drawn."""

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
from rib.data import images
from rib.data.images import CorruptImageError, decode, fit_on_white, resize_and_crop
from rib.data.layouts.iconify import render
from rib.data.svg import renderer
from rib.data.variables import DEFAULTS, PHOTO_MEGAPIXELS
from rib.schema.config import config_of
from rib.schema.geometry import Geometry
from tiny.fuzz import fuzzed


def noise(width, height):
    """A photo of noise, always the same for a size."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(97, 61), (61, 97)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_photos_are_resized_and_cropped_as_timm_does_for_evaluation(size, interpolation, crop):
    # given
    image = noise(*size)
    geometry = Geometry(32, crop, interpolation)
    transform = timm.data.create_transform(
        32,
        is_training=False,
        interpolation=interpolation,
        crop_pct=crop,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    channels_first = transform(image).numpy()
    expected_pixels = (channels_first.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    # when
    pixels = resize_and_crop(image, geometry)
    # then
    np.testing.assert_array_equal(pixels, expected_pixels)


def resized_whole(image, geometry):
    """What `resize_and_crop` gives, by resizing all of the image."""
    resized_side = int(geometry.size / geometry.crop_pct)
    if geometry.crop_mode == "squash":
        width = resized_side
        height = resized_side
    else:
        shorter_side = min(image.size)
        width = resized_side * image.width // shorter_side
        height = resized_side * image.height // shorter_side
    resized = image.resize((width, height), images.RESAMPLING[geometry.interpolation])
    left = round((width - geometry.size) / 2)
    top = round((height - geometry.size) / 2)
    return np.asarray(resized.crop((left, top, left + geometry.size, top + geometry.size)))


def geometries(*crop_modes):
    """Geometries with any of these crop modes, for Hypothesis."""
    return st.builds(
        Geometry,
        size=st.integers(1, 64),
        crop_pct=st.sampled_from([0.7, 0.875, 0.9, 0.965, 1.0]),
        interpolation=st.sampled_from(["bicubic", "bilinear"]),
        crop_mode=st.sampled_from(crop_modes),
    )


SIZES = st.tuples(st.integers(1, 80), st.integers(1, 80))  # width and height
NARROW_SIZES = st.tuples(st.integers(1, 3), st.integers(1, 900))


@fuzzed(300)
@given(SIZES, geometries("center", "squash"))
def test_ordinary_photos_have_the_pixels_of_the_whole_resized_photo(size, geometry):
    image = noise(*size)
    pixels = resize_and_crop(image, geometry)
    np.testing.assert_array_equal(pixels, resized_whole(image, geometry))


@fuzzed(600)
@given(SIZES | NARROW_SIZES, geometries("center"), st.booleans())
def test_what_is_resized_for_a_crop_alone_differs_by_rounding_only(size, geometry, turned):
    """Black and white noise, in which filters overshoot.

    A shift of a hundredth pixel is seen in it.
    """
    # given
    if turned:
        height, width = size
    else:
        width, height = size
    black_and_white = noise(width, height).point(lambda value: 255 * (value > 127))
    # when
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MOST_RESIZED_PIXELS", 0)
        cropped_first = resize_and_crop(black_and_white, geometry).astype(int)
    # then
    expected_pixels = resized_whole(black_and_white, geometry).astype(int)
    assert cropped_first.shape == expected_pixels.shape
    assert np.abs(cropped_first - expected_pixels).max() <= 2  # each side is rounded once


@pytest.mark.parametrize("size", [(1, 1000), (3000, 3)])
def test_of_a_narrow_photo_only_what_the_crop_keeps_is_resized(monkeypatch, size):
    # given
    numbers_of_pixels = []
    resize = Image.Image.resize

    def count_and_resize(image, new_size, *arguments):
        """Pillow resizes one side, and then the other."""
        new_width, new_height = new_size
        after_width = new_width * image.height
        after_height = image.width * new_height
        numbers_of_pixels.append(max(new_width * new_height, after_width, after_height))
        return resize(image, new_size, *arguments)

    monkeypatch.setattr(Image.Image, "resize", count_and_resize)
    # when
    pixels = resize_and_crop(noise(*size), Geometry(1024, 0.875, "bicubic"))
    # then
    assert pixels.shape == (1024, 1024, 3)
    assert numbers_of_pixels
    assert sum(numbers_of_pixels) <= 2 * 1024**2


def encoded(image, kind="PNG", **options):
    """Bytes of an image in a format, whose writer has these options."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data, border=0):
    """Pixels that `decode` gives."""
    return np.asarray(decode(data, "x", border))


def test_a_border_is_cut_off_on_each_side():
    image = noise(31, 17)
    without_border = np.asarray(image)[2:-2, 2:-2]
    np.testing.assert_array_equal(decoded(encoded(image), border=2), without_border)
    np.testing.assert_array_equal(decoded(encoded(image)), np.asarray(image))


def black_range(pixels):
    """First and last column, and first and last row, of the pixels whose red is 0."""
    rows, columns = np.where(pixels[..., 0] == 0)
    return {
        "columns": (columns.min(), columns.max()),
        "rows": (rows.min(), rows.max()),
    }


def test_drawings_keep_their_aspect_and_a_white_margin():
    drawing = Image.new("RGB", (40, 20), "black")
    pixels = fit_on_white(drawing, Geometry(100, 1.0, "bicubic"), margin=0.1)
    assert black_range(pixels) == {"columns": (10, 89), "rows": (30, 69)}


def test_transparency_becomes_white():
    transparent_red = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    np.testing.assert_array_equal(decoded(encoded(transparent_red)), np.full((2, 2, 3), 255))


def png_of(width, height):
    """A PNG of one pixel whose header states other sides."""
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def gif_of(width, height):
    """A GIF whose first frame is larger than its screen, which decoders enlarge."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "GIF"))
    start_of_frame = data.index(b",\0\0\0\0\1\0\1\0")
    start_of_sides = start_of_frame + 5
    data[start_of_sides : start_of_sides + 4] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_of(width, height):
    """A BMP of one pixel whose header states other sides."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize("image_of", [png_of, gif_of, bmp_of])
def test_a_photo_of_too_many_pixels_is_refused_by_its_header(peak, image_of):
    # given
    data = image_of(65_000, 65_000)
    peak()  # what follows is measured
    # when
    message = r"set/a\.png .*65000 x 65000 .*limits\.photo_megapixels"
    with pytest.raises(CorruptImageError, match=message):
        decode(data, "set/a.png")
    # then
    assert peak() < 1 << 22


def test_limits_outside_of_snakemake_are_the_defaults_of_config():
    default_config = config_of({}, "config.yaml")
    limit_of_variable = {}
    for name, limit in default_config["limits"].items():
        limit_of_variable[f"RIB_{name.upper()}"] = limit
    assert limit_of_variable == DEFAULTS


def test_the_limit_of_pixels_is_a_setting(monkeypatch):
    data = encoded(Image.new("1", (1500, 2000)))
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "3")
    assert decode(data, "x").size == (1500, 2000)
    monkeypatch.setenv(PHOTO_MEGAPIXELS, "2")
    with pytest.raises(CorruptImageError, match=r"1500 x 2000 .*limits\.photo_megapixels"):
        decode(data, "x")


BROKEN = b"\x89PNG"
POSTSCRIPT = encoded(Image.new("L", (4, 4)), "EPS")
LINE = encoded(Image.new("L", (1, 1001)))


@pytest.mark.parametrize(
    ("data", "why"),
    [(BROKEN, ""), (POSTSCRIPT, "none of JPEG, PNG"), (LINE, "1 x 1001 pixels")],
    ids=["broken", "read by another program", "no shape"],
)
def test_an_image_that_is_not_decoded_is_named(data, why):
    with pytest.raises(UserError, match=rf"set/a\.png.*{why}"):
        decode(data, "set/a.png")


RAMP = np.linspace(0, 65535, 256).reshape(16, 16)
# Tags of a TIFF.
PHOTOMETRIC = 262
SAMPLE_FORMAT = 339


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_values_of_16_bits_keep_their_highest_eight(kind):
    grey_values = RAMP.astype(np.uint16)
    highest_bits = grey_values >> 8
    pixels = decoded(encoded(Image.fromarray(grey_values), kind))
    assert pixels.shape == (16, 16, 3)
    for channel in np.moveaxis(pixels, -1, 0):
        np.testing.assert_array_equal(channel, highest_bits)


# By reason, the type of the values of a TIFF and its tags.
UNKNOWN_RANGES = {
    "floating-point numbers": (np.float32, {}),
    "integers of 32 bits": (np.int32, {}),
    "with a sign": (np.uint8, {SAMPLE_FORMAT: 2}),
    "not 16 bits from black": (np.uint16, {PHOTOMETRIC: 0}),
}


@pytest.mark.parametrize("why", UNKNOWN_RANGES)
def test_a_tiff_whose_values_have_no_known_range_is_corrupt_and_not_black(why):
    """A TIFF from 0 to 255 or 65535 in a kind of numbers that has no range is refused.

    The sentence says what to do.
    """
    # given
    type_of_values, tags = UNKNOWN_RANGES[why]
    values = RAMP / 257 if type_of_values == np.uint8 else RAMP
    image = Image.fromarray(values.astype(type_of_values))
    data = encoded(image, "TIFF", tiffinfo=tags)
    # then
    with pytest.raises(CorruptImageError, match=rf"set/a\.tif .*{why}.*8 bits per channel"):
        decode(data, "set/a.tif")


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_of_several_frames_the_first_counts(kind):
    first_frame = Image.new("L", (5, 4), 10)
    second_frame = Image.new("L", (5, 4), 200)
    data = encoded(first_frame, kind, save_all=True, append_images=[second_frame])
    np.testing.assert_array_equal(decoded(data), np.full((4, 5, 3), 10))


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


def draw(name):
    """Draw an icon of ICONS with a side of 50 pixels, of which a tenth is margin on each side."""
    with renderer() as render_svg:
        return render(render_svg, ICONS, name, 50, 0.1, "set")


def test_icons_fill_their_square_but_for_the_margin():
    assert black_range(draw("left")) == {"columns": (5, 24), "rows": (5, 44)}
    assert black_range(draw("wide")) == {"columns": (5, 44), "rows": (15, 34)}


def test_aliases_flip_and_turn():
    left = draw("left")
    np.testing.assert_array_equal(draw("right"), left[:, ::-1])
    np.testing.assert_array_equal(draw("again"), left)
    # a quarter turn clockwise brings the left half to the top
    assert black_range(draw("top")) == {"columns": (5, 44), "rows": (5, 24)}


@pytest.mark.parametrize(
    ("name", "why"),
    [("blank", "nothing is visible"), ("broken", ""), ("none", "no icon"), ("loop", "no icon")],
)
def test_an_icon_that_cannot_be_drawn_is_named(name, why):
    with pytest.raises(UserError, match=rf"set: (?=.*'{name}').*{why}"):
        draw(name)
