"""Corruptions of pictures at severities 1 to 5, computed in whole numbers.

Those of the kinds of ImageNet-C have its names (Hendrycks and Dietterich 2019, arXiv 1903.12261);
their strengths are our own, chosen so that small pictures can still be recognised. Lengths are
fractions of a picture's side, so a corruption looks alike at any size.

The functions take a picture, (height, width[, channels]) integers from 0 to 255, a strength from
`CORRUPTIONS` and a seed for what is random. They return integers like the picture, which may be
outside of 0 to 255.
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
    to_picture,
)

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 32  # lengths are stated for a picture of this side, in pixels
BYTES_OF_NORMAL = 4  # hashed bytes whose sum is nearly normally distributed
MEAN_OF_NORMAL = 510  # of the sum
DEVIATION_OF_NORMAL = 148  # of the sum, rounded
MIDDLE_GREY = 128
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # down and right; of a motion


def gaussian_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Normally distributed noise is added to each value; its standard deviation is the strength."""
    normal = _normal(seed, picture.shape)  # with the standard deviation DEVIATION_OF_NORMAL
    noise = divide(normal * strength, DEVIATION_OF_NORMAL)
    noisy: np.ndarray = picture + noise
    return noisy


def speckle_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Normally distributed noise that is proportional to each value.

    The strength is its standard deviation in 1/256 of the value.
    """
    normal = _normal(seed, picture.shape)  # with the standard deviation DEVIATION_OF_NORMAL
    noise = divide(normal * strength * picture, DEVIATION_OF_NORMAL * UNIT)
    noisy: np.ndarray = picture + noise
    return noisy


def impulse_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Some values become 0 or 255, each equally often; the strength is how many in 256."""
    is_hit = hashed_bytes(f"{seed}/hit", picture.shape) < strength
    is_white = hashed_bytes(f"{seed}/white", picture.shape) < MIDDLE_GREY
    black_or_white = np.where(is_white, 255, 0)
    return np.where(is_hit, black_or_white, picture)


def gaussian_blur(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """The picture is blurred by three boxes along each axis, see `blur`.

    The strength is the width of a box in 1/256 of a pixel, for a picture with a side of 32 pixels;
    in a larger picture boxes are wider in proportion.
    """
    width_of_box = _scaled(strength, picture)
    # The radius is what a box has on either side of its middle pixel.
    radius = (width_of_box - UNIT) // 2
    return blur(picture, max(0, radius))


def motion_blur(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """The camera moved along a line: mean of pictures that are shifted against each other.

    The direction is one of four; what is outside of the picture is like its border. The strength
    is the number of pixels of the line, for a picture with a side of 32 pixels.
    """
    height, width = picture.shape[:2]
    direction = hashed_number(seed, 0, len(DIRECTIONS) - 1)
    step_down, step_right = DIRECTIONS[direction]
    number_of_shifts = _scaled(strength, picture)
    first_shift = -(number_of_shifts // 2)
    total = np.zeros(picture.shape, np.int64)
    for shift in range(first_shift, first_shift + number_of_shifts):
        rows = np.clip(np.arange(height) + shift * step_down, 0, height - 1)
        columns = np.clip(np.arange(width) + shift * step_right, 0, width - 1)
        shifted_picture = picture[rows][:, columns]
        total += shifted_picture
    return divide(total, number_of_shifts)


def fog(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Bright clouds in front of the picture; the strength is their share in 1/256."""
    height, width = picture.shape[:2]
    cloud = MIDDLE_GREY + clouds(seed, height, width) // 2  # from middle grey to white
    if picture.ndim == 3:
        cloud = cloud[..., np.newaxis]
    return divide(picture * (UNIT - strength) + cloud * strength, UNIT)


def brightness(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """The strength is added to each value."""
    return picture + strength


def contrast(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Differences from the picture's mean are reduced to strength/256 of what they were."""
    mean = divide(np.sum(picture), picture.size)
    faded: np.ndarray = mean + divide((picture - mean) * strength, UNIT)
    return faded


def pixelate(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Blocks of pixels become their mean; the strength is the number of blocks along a side."""
    height, width = picture.shape[:2]
    # The block of each row, for example 0, 0, 0, 1, 1 if two blocks have five rows.
    block_of_row = np.arange(height) * min(strength, height) // height
    block_of_column = np.arange(width) * min(strength, width) // width
    # Where each block begins, and how many rows and columns it has.
    _, first_rows, rows_of_block = np.unique(block_of_row, return_index=True, return_counts=True)
    _, first_columns, columns_of_block = np.unique(
        block_of_column, return_index=True, return_counts=True
    )
    # The sum of the pixels of each block: over its rows, then over its columns.
    sums_over_rows = np.add.reduceat(picture, first_rows, axis=0)
    sums = np.add.reduceat(sums_over_rows, first_columns, axis=1)
    pixels_of_block = np.outer(rows_of_block, columns_of_block)
    if picture.ndim == 3:
        pixels_of_block = pixels_of_block[..., np.newaxis]
    means = divide(sums, pixels_of_block)
    # All pixels of a block get its mean.
    pixelated: np.ndarray = means[block_of_row][:, block_of_column]
    return pixelated


def occlusion(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """A grey square in front, with its middle in the middle half of the picture.

    The strength is its side in pixels, for a picture with a side of 32 pixels. Source: cutout,
    DeVries and Taylor 2017 (arXiv 1708.04552); it is none of the corruptions of ImageNet-C.
    """
    height, width = picture.shape[:2]
    side = strength * min(height, width) // SIDE
    # Where the middle is, from a quarter to three quarters of the height and of the width.
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
    """Pseudo-random integers that are nearly normally distributed, from a hash of the seed.

    Each is a sum of four bytes without its mean, so the mean is 0 and the standard deviation
    `DEVIATION_OF_NORMAL`.
    """
    random_bytes = hashed_bytes(seed, (BYTES_OF_NORMAL, *shape))
    normal: np.ndarray = random_bytes.sum(axis=0) - MEAN_OF_NORMAL
    return normal


def _scaled(length: int, picture: np.ndarray) -> int:
    """A length in proportion to a picture's shorter side; at least 1.

    Args:
        length: for a side of 32 pixels. With a side of 64 pixels it is twice as long.
    """
    shorter_side = min(picture.shape[:2])
    scaled: int = max(1, length * shorter_side // SIDE)
    return scaled


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption."""

    change: Callable[[np.ndarray, int, str], np.ndarray]
    strengths: Sequence[int]  # at severities 1 to 5; what they mean is said by the function


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
    """A corrupted picture, uint8 like the picture.

    Args:
        picture: (height, width[, channels]) uint8.
        corruption: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: from which noise, clouds, directions and places are hashed. At all severities of one
            seed they are the same, and only stronger.
    """
    kind = CORRUPTIONS[corruption]
    strength = kind.strengths[severity - 1]
    changed = kind.change(picture.astype(np.int64), strength, f"{corruption}/{seed}")
    return to_picture(changed)
