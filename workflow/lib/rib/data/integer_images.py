"""Blurring, sampling and noise in integer arithmetic.

The results are the same bytes on every machine and with every version of NumPy: they depend on no
floating-point unit, image library or random generator. Random values are hashes of a text, the
seed.
"""

import hashlib
import math

import numpy as np

UNIT = 256  # positions, radii and weights are in 1/256 (of a pixel, or of 1)
TURN_UNIT = 65536  # sines are in 1/65536
PASSES = 3  # three boxes are nearly a Gaussian
# Sines of 0 to 90 degrees in 1/65536, rounded.
# fmt: off
SINES = (
    0, 1144, 2287, 3430, 4572, 5712, 6850, 7987, 9121, 10252,
    11380, 12505, 13626, 14742, 15855, 16962, 18064, 19161, 20252, 21336,
    22415, 23486, 24550, 25607, 26656, 27697, 28729, 29753, 30767, 31772,
    32768, 33754, 34729, 35693, 36647, 37590, 38521, 39441, 40348, 41243,
    42126, 42995, 43852, 44695, 45525, 46341, 47143, 47930, 48703, 49461,
    50203, 50931, 51643, 52339, 53020, 53684, 54332, 54963, 55578, 56175,
    56756, 57319, 57865, 58393, 58903, 59396, 59870, 60326, 60764, 61183,
    61584, 61966, 62328, 62672, 62997, 63303, 63589, 63856, 64104, 64332,
    64540, 64729, 64898, 65048, 65177, 65287, 65376, 65446, 65496, 65526,
    65536,
)
# fmt: on


def hashed_bytes(seed: str, shape: tuple[int, ...]) -> np.ndarray:
    """Pseudo-random int64 numbers from 0 to 255 of a shape: SHAKE-256 of a seed."""
    stream = hashlib.shake_256(seed.encode()).digest(math.prod(shape))
    return np.frombuffer(stream, np.uint8).reshape(shape).astype(np.int64)


def hashed_number(seed: str, lowest: int, highest: int) -> int:
    """A pseudo-random number from `lowest` to `highest`, both included."""
    digest = hashlib.sha256(seed.encode()).digest()
    return lowest + int.from_bytes(digest, "big") % (highest - lowest + 1)


def to_picture(numbers: np.ndarray) -> np.ndarray:
    """Integers as uint8, clipped to 0 to 255."""
    picture: np.ndarray = np.clip(numbers, 0, 255).astype(np.uint8)
    return picture


def scaled(length: int, picture: np.ndarray, side: int) -> int:
    """A length at the picture's size, at least 1; it is stated for a shorter side of `side` pixels.

    For a side of 32, a length of 3 stays 3 at 32 pixels and becomes 6 at 64.
    """
    shorter_side: int = min(picture.shape[:2])
    return max(1, length * shorter_side // side)


def divide(numerators: np.ndarray, denominator: int | np.ndarray) -> np.ndarray:
    """Quotients rounded to the nearest integer, halves up; the denominator is positive."""
    return (2 * numerators + denominator) // (2 * denominator)


def blur(picture: np.ndarray, radius: int) -> np.ndarray:
    """A picture blurred by three box filters along each axis; the border is repeated.

    A box may end between two pixels; the outer one then counts in part (extended box filter,
    Gwosdek et al. 2011, Theoretical Foundations of Gaussian Convolution by Extended Box Filtering).

    Args:
        picture: (height, width[, channels]) integers.
        radius: in 1/256 pixel, from a box's middle to the middle of its outermost whole pixel; 0
            changes nothing. For large radii, the blur's standard deviation is about radius + 1/2
            pixels.

    Returns:
        int64, of the picture's shape.
    """
    blurred = picture.astype(np.int64) * UNIT  # fractional digits, rounded at the end
    for axis in (0, 1):
        for _ in range(PASSES):
            blurred = _box_filter(blurred, radius, axis)
    return divide(blurred, UNIT)


def _box_filter(numbers: np.ndarray, radius: int, axis: int) -> np.ndarray:
    """Weighted means along an axis; a radius of 1.5 pixels (384/256) weights 1/2, 1, 1, 1, 1/2."""
    whole_radius, fraction = divmod(radius, UNIT)
    length = numbers.shape[axis]
    # Repeat the border for equally many neighbours: pixel i of `numbers` is pixel i + whole_radius
    # + 1 of `padded`.
    padding = [(0, 0)] * numbers.ndim
    padding[axis] = (whole_radius + 1, whole_radius + 1)
    padded = np.moveaxis(np.pad(numbers, padding, mode="edge"), axis, 0)
    # The sum of a pixel's full neighbours is a difference of running totals.
    pixels_in_full = 2 * whole_radius + 1
    running_total = np.concatenate([np.zeros_like(padded[:1]), np.cumsum(padded, axis=0)])
    total_up_to_last = running_total[1 + pixels_in_full : 1 + pixels_in_full + length]
    total_before_first = running_total[1 : 1 + length]
    sum_in_full = total_up_to_last - total_before_first
    # The two partial neighbours are next to the full ones.
    before_first = padded[:length]
    after_last = padded[1 + pixels_in_full : 1 + pixels_in_full + length]
    weighted_sum = UNIT * sum_in_full + fraction * (before_first + after_last)
    sum_of_weights = UNIT * pixels_in_full + 2 * fraction
    means = divide(weighted_sum, sum_of_weights)
    return np.moveaxis(means, 0, axis)


def enlarge(lattice: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation of a lattice; its corners become the picture's corner pixels.

    Args:
        lattice: (rows, columns[, channels]) integers, at least 2 x 2.

    Returns:
        (height, width[, channels]) int64.
    """
    rows, columns = lattice.shape[:2]
    # Position of each pixel in the lattice, in 1/256 of the distance between lattice points.
    last_row = (rows - 1) * UNIT
    last_column = (columns - 1) * UNIT
    row_positions = np.arange(height) * last_row // max(1, height - 1)
    column_positions = np.arange(width) * last_column // max(1, width - 1)
    return sample(lattice, row_positions[:, np.newaxis], column_positions[np.newaxis, :])


def clouds(seed: str, height: int, width: int) -> np.ndarray:
    """Smooth pseudo-random clouds over the full range 0 to 255: (height, width) int64.

    Value noise: the sum of three coarse random pictures, enlarged; finer ones are weaker.
    """
    total = np.zeros((height, width), np.int64)
    weights = (4, 2, 1)
    sides = (4, 6, 10)  # random greys along each side
    for octave, (weight, side) in enumerate(zip(weights, sides, strict=True)):
        random_greys = hashed_bytes(f"{seed}/octave {octave}", (side, side))
        total += weight * enlarge(random_greys, height, width)
    darkest = int(total.min())
    brightest = int(total.max())
    span = max(1, brightest - darkest)
    return divide((total - darkest) * 255, span)


def sample(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, fill: int = 0) -> np.ndarray:
    """A picture at positions between its pixels, by bilinear interpolation.

    Args:
        picture: (height, width[, channels]) integers.
        rows, columns: integers in 1/256 pixel that broadcast to the result's shape; 0 is the middle
            of the first pixel.
        fill: value around the picture.

    Returns:
        (*shape of the positions[, channels]) int64.
    """
    rows, columns = np.broadcast_arrays(rows, columns)
    first_row, row_fraction = np.divmod(rows, UNIT)
    first_column, column_fraction = np.divmod(columns, UNIT)
    if picture.ndim == 3:  # same fraction for all channels
        row_fraction = row_fraction[..., np.newaxis]
        column_fraction = column_fraction[..., np.newaxis]
    # Mix the four pixels around each position.
    upper_left = _pixels_at(picture, first_row, first_column, fill)
    upper_right = _pixels_at(picture, first_row, first_column + 1, fill)
    lower_left = _pixels_at(picture, first_row + 1, first_column, fill)
    lower_right = _pixels_at(picture, first_row + 1, first_column + 1, fill)
    upper = upper_left * (UNIT - column_fraction) + upper_right * column_fraction
    lower = lower_left * (UNIT - column_fraction) + lower_right * column_fraction
    return divide(upper * (UNIT - row_fraction) + lower * row_fraction, UNIT * UNIT)


def _pixels_at(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, fill: int) -> np.ndarray:
    """Pixels at positions (rows, columns) that are whole numbers; `fill` outside the picture."""
    height, width = picture.shape[:2]
    is_row_inside = (rows >= 0) & (rows < height)
    is_column_inside = (columns >= 0) & (columns < width)
    is_inside = is_row_inside & is_column_inside
    if picture.ndim == 3:
        is_inside = is_inside[..., np.newaxis]
    nearest_rows = np.clip(rows, 0, height - 1)
    nearest_columns = np.clip(columns, 0, width - 1)
    nearest_pixels = picture[nearest_rows, nearest_columns].astype(np.int64)
    return np.where(is_inside, nearest_pixels, fill)


def sine(degrees: int) -> int:
    """The sine of whole degrees in 1/65536: 32768 for 30 and 150 degrees, -32768 for 210."""
    degrees %= 360
    if degrees >= 180:
        return -sine(degrees - 180)
    if degrees > 90:
        return SINES[180 - degrees]
    return SINES[degrees]


def turn_and_scale(
    picture: np.ndarray,
    degrees: int,
    scale: int,
    shift: tuple[int, int],
    fill: int = 0,
) -> np.ndarray:
    """A picture turned and scaled around its middle, then shifted; bilinear interpolation.

    Args:
        picture: (height, width[, channels]) integers.
        degrees: clockwise, as seen.
        scale: in 1/256; 128 halves the sides.
        shift: downwards and to the right, in 1/256 pixel.
        fill: value around the picture.

    Returns:
        int64, of the picture's shape.
    """
    height, width = picture.shape[:2]
    shift_down, shift_right = shift
    # Find where each pixel of the result comes from: undo shift, turn and scale, in this order.
    # Places are measured from the middle in 1/512 pixel, in which the middle is a whole number.
    middle_row = UNIT * (height - 1)
    middle_column = UNIT * (width - 1)
    down = 2 * (UNIT * np.arange(height)[:, np.newaxis] - shift_down) - middle_row
    right = 2 * (UNIT * np.arange(width)[np.newaxis, :] - shift_right) - middle_column
    sine_of_turn = sine(degrees)
    cosine_of_turn = sine(degrees + 90)
    right_before_turn = right * cosine_of_turn + down * sine_of_turn
    down_before_turn = down * cosine_of_turn - right * sine_of_turn
    rows = _undo_scale(down_before_turn, scale) + middle_row
    columns = _undo_scale(right_before_turn, scale) + middle_column
    return sample(picture, divide(rows, 2), divide(columns, 2), fill)


def _undo_scale(positions: np.ndarray, scale: int) -> np.ndarray:
    """Positions before scaling; sines and cosines have made these 65536 times too large."""
    return divide(positions * UNIT, TURN_UNIT * scale)
