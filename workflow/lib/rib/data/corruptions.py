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
    noisy: np.ndarray = picture + divide(
        _normal(seed, picture.shape) * strength, DEVIATION_OF_NORMAL
    )
    return noisy


def speckle_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Normally distributed noise that is proportional to each value.

    The strength is its standard deviation in 1/256 of the value.
    """
    noise = _normal(seed, picture.shape) * strength * picture
    noisy: np.ndarray = picture + divide(noise, DEVIATION_OF_NORMAL * UNIT)
    return noisy


def impulse_noise(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Some values become 0 or 255; the strength is how many in 256."""
    is_hit = hashed_bytes(f"{seed}/hit", picture.shape) < strength
    is_white = hashed_bytes(f"{seed}/white", picture.shape) < MIDDLE_GREY
    return np.where(is_hit, np.where(is_white, 255, 0), picture)


def gaussian_blur(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """The picture is blurred by three boxes along each axis, see `blur`.

    The strength is the width of a box in 1/256 of a pixel of a side of 32.
    """
    radius = (_scaled(strength, picture) - UNIT) // 2
    return blur(picture, max(0, radius))


def motion_blur(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """The camera moved along a line: mean of pictures that are shifted against each other.

    The direction is one of four; what is outside of the picture is like its border. The strength
    is the number of pixels of the line for a side of 32.
    """
    height, width = picture.shape[:2]
    step_down, step_right = DIRECTIONS[hashed_number(seed, 0, len(DIRECTIONS) - 1)]
    number_of_shifts = _scaled(strength, picture)
    total = np.zeros(picture.shape, np.int64)
    for number in range(number_of_shifts):
        shift = number - number_of_shifts // 2
        rows = np.clip(np.arange(height) + shift * step_down, 0, height - 1)
        columns = np.clip(np.arange(width) + shift * step_right, 0, width - 1)
        total += picture[rows][:, columns]
    return divide(total, number_of_shifts)


def fog(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Bright clouds in front; the strength is their share in 1/256."""
    height, width = picture.shape[:2]
    cloud = MIDDLE_GREY + clouds(seed, height, width) // 2
    if picture.ndim == 3:
        cloud = cloud[..., np.newaxis]
    return divide(picture * (UNIT - strength) + cloud * strength, UNIT)


def brightness(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """The strength is added to each value."""
    return picture + strength


def contrast(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Differences from the picture's mean remain to a share of the strength in 1/256."""
    mean = divide(np.sum(picture), picture.size)
    faded: np.ndarray = mean + divide((picture - mean) * strength, UNIT)
    return faded


def pixelate(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """Blocks of pixels become their mean; the strength is the number of blocks along a side."""
    height, width = picture.shape[:2]
    block_of_row = np.arange(height) * min(strength, height) // height
    block_of_column = np.arange(width) * min(strength, width) // width
    first_rows = np.searchsorted(block_of_row, np.unique(block_of_row))
    first_columns = np.searchsorted(block_of_column, np.unique(block_of_column))
    sums = np.add.reduceat(picture, first_rows, axis=0)
    sums = np.add.reduceat(sums, first_columns, axis=1)
    pixels = np.outer(np.bincount(block_of_row), np.bincount(block_of_column))
    if picture.ndim == 3:
        pixels = pixels[..., np.newaxis]
    means = divide(sums, pixels)
    blocks: np.ndarray = means[block_of_row][:, block_of_column]
    return blocks


def occlusion(picture: np.ndarray, strength: int, seed: str) -> np.ndarray:
    """A grey square in front, with its middle in the middle half of the picture.

    The strength is its side in pixels of a side of 32. Source: cutout, DeVries and Taylor 2017
    (arXiv 1708.04552); it is none of the corruptions of ImageNet-C.
    """
    height, width = picture.shape[:2]
    side = strength * min(height, width) // SIDE
    middle_row = height * hashed_number(f"{seed}/row", UNIT // 4, UNIT * 3 // 4) // UNIT
    middle_column = width * hashed_number(f"{seed}/column", UNIT // 4, UNIT * 3 // 4) // UNIT
    top = middle_row - side // 2
    left = middle_column - side // 2
    occluded = picture.copy()
    occluded[max(0, top) : top + side, max(0, left) : left + side] = MIDDLE_GREY
    return occluded


def _normal(seed: str, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normally distributed integers with mean 0 and `DEVIATION_OF_NORMAL`: sums of bytes."""
    hashed = hashed_bytes(seed, (BYTES_OF_NORMAL, *shape))
    normal: np.ndarray = hashed.sum(axis=0) - MEAN_OF_NORMAL
    return normal


def _scaled(length: int, picture: np.ndarray) -> int:
    """A length for a side of 32 pixels, for the shorter side of a picture; at least 1."""
    scaled: int = max(1, length * min(picture.shape[:2]) // SIDE)
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
