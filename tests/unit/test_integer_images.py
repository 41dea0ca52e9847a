"""Blurring, sampling and noise in whole numbers against slow or floating-point references."""

import hashlib
import math

import numpy as np
import pytest
from scipy import ndimage

from rib.data.integer_images import (
    SINES,
    blur,
    clouds,
    divide,
    enlarge,
    hashed_bytes,
    hashed_number,
    sample,
    sine,
    to_picture,
    turn_and_scale,
)


@pytest.fixture(params=[(21, 17), (16, 16, 3)], ids=["grey", "colour"])
def picture(request):
    return np.random.default_rng(1).integers(0, 256, request.param, np.uint8)


def test_hashes_are_those_of_the_standard_library():
    stream = hashlib.shake_256(b"seed").digest(6)
    assert hashed_bytes("seed", (2, 3)).tolist() == [list(stream[:3]), list(stream[3:])]
    numbers = [hashed_number(f"seed {n}", -3, 4) for n in range(400)]
    assert set(numbers) == set(range(-3, 5))
    assert hashed_number("a", 7, 7) == 7
    assert hashed_number("a", 0, 2**256 - 1) == int(hashlib.sha256(b"a").hexdigest(), 16)


def test_quotients_are_rounded_to_the_nearest():
    numerators = np.arange(-50, 50)
    for denominator in (1, 2, 3, 7):
        expected = [math.floor(n / denominator + 0.5) for n in numerators]
        assert divide(numerators, denominator).tolist() == expected
    assert to_picture(np.array([-1, 0, 255, 256])).tolist() == [0, 0, 255, 255]


def test_sines_are_those_of_the_math_library():
    assert len(SINES) == 91
    for degrees in range(-400, 800):
        assert abs(sine(degrees) - 65536 * math.sin(math.radians(degrees))) <= 0.5 + 1e-6


def sample_slowly(picture, row, column, fill):
    """Bilinear interpolation at one position in 1/256 of a pixel, pixel by pixel."""
    total = np.zeros(picture.shape[2:], int)
    for down in (0, 1):
        for right in (0, 1):
            y = math.floor(row / 256) + down
            x = math.floor(column / 256) + right
            is_inside = 0 <= y < picture.shape[0] and 0 <= x < picture.shape[1]
            pixel = picture[y, x].astype(int) if is_inside else fill
            weight_down = row % 256 if down else 256 - row % 256
            weight_right = column % 256 if right else 256 - column % 256
            total = total + weight_down * weight_right * pixel
    return (2 * total + 65536) // (2 * 65536)


def test_sampling_is_bilinear_and_the_outside_is_filled(picture):
    rng = np.random.default_rng(2)
    rows = rng.integers(-800, 256 * picture.shape[0] + 800, 300)
    columns = rng.integers(-800, 256 * picture.shape[1] + 800, 300)
    sampled = sample(picture, rows, columns, fill=9)
    for position in range(300):
        expected = sample_slowly(picture, int(rows[position]), int(columns[position]), 9)
        assert (sampled[position] == expected).all()


def test_turning_and_scaling_is_sampling_at_the_positions_of_the_inverse_map(picture):
    """Positions of floating-point numbers differ by less than 1/64 of a pixel."""
    for degrees, scale, shift in ((0, 256, (0, 0)), (37, 150, (300, -200)), (-60, 300, (0, 77))):
        turned = turn_and_scale(picture, degrees, scale, shift, fill=5)
        height, width = picture.shape[:2]
        rows, columns = np.mgrid[:height, :width].astype(float)
        down = rows - shift[0] / 256 - (height - 1) / 2
        right = columns - shift[1] / 256 - (width - 1) / 2
        angle = math.radians(degrees)
        source_columns = (right * math.cos(angle) + down * math.sin(angle)) * 256 / scale
        source_rows = (down * math.cos(angle) - right * math.sin(angle)) * 256 / scale
        positions = [source_rows + (height - 1) / 2, source_columns + (width - 1) / 2]
        padded = np.pad(picture, [(9, 9), (9, 9), *[(0, 0)] * (picture.ndim - 2)],
                        constant_values=5).astype(float)  # fmt: skip
        channels = padded.reshape(*padded.shape[:2], -1)
        for channel in range(channels.shape[2]):
            expected = ndimage.map_coordinates(
                channels[..., channel], [position + 9 for position in positions], order=1, cval=5
            )
            made = turned.reshape(height, width, -1)[..., channel]
            assert np.abs(made - expected).max() < 8 and np.abs(made - expected).mean() < 1
    assert (turn_and_scale(picture, 0, 256, (0, 0)) == picture).all()
    assert (turn_and_scale(picture, 180, 256, (0, 0)) == picture[::-1, ::-1]).all()


@pytest.mark.parametrize("radius", [0, 40, 256, 300, 1000])
def test_a_blur_is_three_extended_boxes_along_each_axis(picture, radius):
    whole, fraction = divmod(radius, 256)
    box = np.array([fraction, *[256] * (2 * whole + 1), fraction], float)
    expected = picture.astype(float)
    for axis in (0, 1):
        for _ in range(3):
            expected = ndimage.convolve1d(expected, box / box.sum(), axis=axis, mode="nearest")
    blurred = blur(picture, radius)
    assert blurred.shape == picture.shape and np.abs(blurred - expected).max() <= 0.55
    if radius == 0:
        assert (blurred == picture).all()


def test_a_lattice_is_interpolated_between_its_corners():
    lattice = np.array([[0, 100], [200, 40]])
    enlarged = enlarge(lattice, 5, 9)
    assert enlarged[::4, ::8].tolist() == lattice.tolist()
    assert enlarged[0, 4] == 50 and enlarged[2, 0] == 100 and enlarged[2, 4] == 85
    assert enlarge(lattice, 1, 1).tolist() == [[0]]


def test_clouds_are_smooth_fill_the_range_and_depend_on_the_seed():
    cloud = clouds("a", 32, 48)
    assert cloud.shape == (32, 48) and cloud.min() == 0 and cloud.max() == 255
    assert np.abs(np.diff(cloud, axis=0)).max() < 80 and np.abs(np.diff(cloud)).max() < 80
    assert (cloud == clouds("a", 32, 48)).all() and (cloud != clouds("b", 32, 48)).any()
