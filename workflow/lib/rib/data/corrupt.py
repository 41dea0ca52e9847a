"""Corruptions of pictures at severities 1 to 5, in integer arithmetic.

Names are ImageNet-C's (Hendrycks and Dietterich 2019, arXiv 1903.12261); the strengths are our own,
and keep small pictures recognisable. Functions take a picture, (height, width[, channels]) integers
from 0 to 255, a strength from `CORRUPTIONS` and a random seed. They return integers of the same
shape, perhaps beyond 0 to 255. Lengths are fractions of a picture's side, so corruptions look alike
at any size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rib.data.integer_images import (
    UNIT,
    blur,
    clouds,
    divide,
    hashed_bytes,
    hashed_number,
    scaled,
    to_picture,
)

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 32  # lengths are stated for a side of so many pixels
BYTES_OF_NORMAL = 4  # the sum of four random bytes is nearly normal
MEAN_OF_NORMAL = 510  # of the sum
DEVIATION_OF_NORMAL = 148  # of the sum, rounded
MIDDLE_GREY = 128
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # down and right, of a motion


def gaussian_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Add normal noise; the strength is its standard deviation."""
    normal = _normal(seed, picture.shape)  # with the standard deviation DEVIATION_OF_NORMAL
    noise = divide(normal * strength, DEVIATION_OF_NORMAL)
    noisy: np.ndarray = picture + noise
    return noisy


def speckle_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Add normal noise proportional to each value; the standard deviation is strength/256 of it."""
    normal = _normal(seed, picture.shape)  # with the standard deviation DEVIATION_OF_NORMAL
    noise = divide(normal * strength * picture, DEVIATION_OF_NORMAL * UNIT)
    noisy: np.ndarray = picture + noise
    return noisy


def impulse_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Replace strength/256 of the values by 0 or 255, equally often."""
    is_hit = hashed_bytes(f"{seed}/hit", picture.shape) < strength
    is_white = hashed_bytes(f"{seed}/white", picture.shape) < MIDDLE_GREY
    black_or_white = np.where(is_white, 255, 0)
    return np.where(is_hit, black_or_white, picture)


def gaussian_blur(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Blur by three boxes along each axis.

    The strength is a box's width in 1/256 pixel, for a side of 32 pixels; boxes grow with the
    picture. The seed is unused.
    """
    width_of_box = scaled(strength, picture, SIDE)
    # A box is its middle pixel and a radius on either side.
    radius = (width_of_box - UNIT) // 2
    return blur(picture, max(0, radius))


def motion_blur(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Mean of pictures shifted along a line in one of four directions; the border is repeated.

    The strength is the line's length in pixels, for a side of 32 pixels.
    """
    height, width = picture.shape[:2]
    direction = hashed_number(seed, 0, len(DIRECTIONS) - 1)
    step_down, step_right = DIRECTIONS[direction]
    number_of_shifts = scaled(strength, picture, SIDE)
    first_shift = -(number_of_shifts // 2)
    total = np.zeros(picture.shape, np.int64)
    for shift in range(first_shift, first_shift + number_of_shifts):
        rows = np.clip(np.arange(height) + shift * step_down, 0, height - 1)
        columns = np.clip(np.arange(width) + shift * step_right, 0, width - 1)
        shifted_picture = picture[rows][:, columns]
        total += shifted_picture
    return divide(total, number_of_shifts)


def fog(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Bright clouds in front of the picture, with a share of strength/256."""
    height, width = picture.shape[:2]
    cloud = MIDDLE_GREY + clouds(seed, height, width) // 2  # middle grey to white
    if picture.ndim == 3:
        cloud = cloud[..., np.newaxis]
    return divide(picture * (UNIT - strength) + cloud * strength, UNIT)


def brightness(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Add the strength to each value, perhaps beyond 255; the seed is unused."""
    return picture + strength


def contrast(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Reduce differences from the picture's mean to strength/256; the seed is unused."""
    mean = divide(np.sum(picture), picture.size)
    faded: np.ndarray = mean + divide((picture - mean) * strength, UNIT)
    return faded


def pixelate(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Replace blocks of pixels by their mean; the seed is unused.

    The strength is the number of blocks along a side.
    """
    height, width = picture.shape[:2]
    # Block of each row: two blocks of five rows give 0, 0, 0, 1, 1.
    block_of_row = np.arange(height) * min(strength, height) // height
    block_of_column = np.arange(width) * min(strength, width) // width
    # First row and number of rows of each block, and the same for columns.
    _, first_rows, rows_of_block = np.unique(block_of_row, return_index=True, return_counts=True)
    _, first_columns, columns_of_block = np.unique(
        block_of_column, return_index=True, return_counts=True
    )
    # Sum each block over its rows, then over its columns.
    sums_over_rows = np.add.reduceat(picture, first_rows, axis=0)
    sums = np.add.reduceat(sums_over_rows, first_columns, axis=1)
    pixels_of_block = np.outer(rows_of_block, columns_of_block)
    if picture.ndim == 3:
        pixels_of_block = pixels_of_block[..., np.newaxis]
    means = divide(sums, pixels_of_block)
    pixelated: np.ndarray = means[block_of_row][:, block_of_column]
    return pixelated


def occlusion(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """A grey square in front, centred somewhere in the picture's middle half.

    The strength is its side in pixels, for a side of 32 pixels. Source: cutout, DeVries and Taylor
    2017 (arXiv 1708.04552); ImageNet-C has no such corruption.
    """
    height, width = picture.shape[:2]
    side = strength * min(height, width) // SIDE
    # Centre, from a quarter to three quarters of height and width.
    quarter = UNIT // 4
    middle_in_height = hashed_number(f"{seed}/row", quarter, 3 * quarter)
    middle_in_width = hashed_number(f"{seed}/column", quarter, 3 * quarter)
    middle_row = height * middle_in_height // UNIT
    middle_column = width * middle_in_width // UNIT
    top = middle_row - side // 2
    left = middle_column - side // 2
    occluded = picture.copy()
    occluded[max(0, top) : top + side, max(0, left) : left + side] = MIDDLE_GREY
    return occluded


def _normal(seed: str, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normal integers of a shape, with mean 0 and deviation 148: sums of random bytes."""
    random_bytes = hashed_bytes(seed, (BYTES_OF_NORMAL, *shape))
    normal: np.ndarray = random_bytes.sum(axis=0) - MEAN_OF_NORMAL
    return normal


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption."""

    change: Callable[[np.ndarray, int, str], np.ndarray]  # from picture, strength and seed
    strengths: Sequence[int]  # at severities 1 to 5; in the unit of `change`


CORRUPTIONS = {
    "gaussian_noise": Corruption(gaussian_noise, (16, 26, 38, 54, 74)),
    "speckle_noise": Corruption(speckle_noise, (38, 60, 90, 125, 160)),
    "impulse_noise": Corruption(impulse_noise, (8, 15, 25, 42, 64)),
    "gaussian_blur": Corruption(gaussian_blur, (304, 384, 528, 704, 896)),
    "motion_blur": Corruption(motion_blur, (3, 4, 6, 8, 10)),
    "fog": Corruption(fog, (64, 96, 128, 156, 180)),
    "brightness": Corruption(brightness, (32, 56, 80, 104, 128)),
    "contrast": Corruption(contrast, (160, 116, 84, 60, 42)),
    "pixelate": Corruption(pixelate, (24, 20, 16, 13, 11)),
    "occlusion": Corruption(occlusion, (6, 8, 10, 12, 14)),
}


def corrupt(picture: np.ndarray, corruption: str, severity: int, seed: str) -> np.ndarray:
    """A corrupted picture, uint8 with the picture's shape.

    Args:
        picture: (height, width[, channels]) uint8.
        corruption: a key of `CORRUPTIONS`, such as `fog`.
        severity: 1 to 5.
        seed: noise, clouds, directions and places are hashed from it; severities differ only in
            strength.
    """
    kind = CORRUPTIONS[corruption]
    strength = kind.strengths[severity - 1]
    changed = kind.change(picture.astype(np.int64), strength, f"{corruption}/{seed}")
    return to_picture(changed)
