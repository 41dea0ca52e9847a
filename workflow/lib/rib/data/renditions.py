"""Renditions of small grey photos of a bright object on black, computed in whole numbers.

A rendition is a function of a photo, (height, width) uint8, and a seed for what is random. It
returns a picture of the same height and width: (height, width[, 3]) uint8. The constants suit
photos of about 32 x 32 pixels.
"""

from collections.abc import Callable

import numpy as np

from rib.data.integer_images import (
    UNIT,
    blur,
    clouds,
    divide,
    hashed_bytes,
    hashed_number,
    to_picture,
    turn_and_scale,
)

WHITE = 255
OBJECT = 24  # a pixel is of the object from this grey on
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))
LINE = 72  # a difference of greys from which there is a line
TONES = (104, 180, 256)  # shares of a cartoon's colour in 1/256, from dark to bright
MEDIUM = 184  # a drawing is hatched below this grey
DARK = 112  # and cross-hatched below this one
LARGEST_TURN = 60  # degrees, to either side
SMALLEST_TURN = 15


def plain(photo: np.ndarray, seed: str) -> np.ndarray:
    """The photo as it is."""
    return photo


def edges(photo: np.ndarray, seed: str) -> np.ndarray:
    """Black lines on white paper, where grey changes fast.

    The gradient is Sobel's; a pixel is on a line if none of its neighbours across the line has a
    larger gradient (non-maximum suppression, Canny 1986).
    """
    smooth = blur(photo, UNIT // 4)
    down, right = _gradient(smooth)
    strength = np.abs(down) + np.abs(right)
    is_steep_down = np.abs(down) > np.abs(right)
    padded = np.pad(strength, 1)
    above = padded[:-2, 1:-1]
    below = padded[2:, 1:-1]
    left = padded[1:-1, :-2]
    beyond = padded[1:-1, 2:]
    is_peak_down = (strength >= above) & (strength > below)
    is_peak_right = (strength >= left) & (strength > beyond)
    is_peak = np.where(is_steep_down, is_peak_down, is_peak_right)
    is_line = is_peak & (strength > LINE)
    return np.where(is_line, 0, WHITE).astype(np.uint8)


def _gradient(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel's differences downwards and to the right, each (height, width)."""
    padded = np.pad(photo, 1, mode="edge")
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return columns[2:] - columns[:-2], rows[:, 2:] - rows[:, :-2]


def cartoon(photo: np.ndarray, seed: str) -> np.ndarray:
    """Black lines and three flat tones of one colour, on paper of another.

    The object's greys are stretched to the full range, and each pixel gets the tone that is most
    frequent in its neighbourhood of 3 x 3. Lines are those of `edges`.
    """
    is_object = _is_object(photo)
    tone = np.minimum(_stretch(photo) * len(TONES) // (WHITE + 1), len(TONES) - 1)
    flat_tone = np.array(TONES)[_most_frequent(tone, is_object)]
    colour = 96 + hashed_bytes(f"{seed}/colour", (3,)) * 5 // 8
    paper = 176 + hashed_bytes(f"{seed}/paper", (3,)) * 5 // 16
    flat_colour = divide(flat_tone[..., np.newaxis] * colour, UNIT)
    on_paper = np.where(is_object[..., np.newaxis], flat_colour, paper)
    is_line = edges(photo, seed) == 0
    return to_picture(np.where(is_line[..., np.newaxis], 0, on_paper))


def _stretch(photo: np.ndarray) -> np.ndarray:
    """The greys of the object from 0 for its darkest to 255 for its brightest: int64."""
    greys = photo[_is_object(photo)].astype(np.int64)
    if greys.size == 0:
        return photo.astype(np.int64)
    darkest = int(greys.min())
    span = max(1, int(greys.max()) - darkest)
    stretched: np.ndarray = np.clip(
        divide((photo.astype(np.int64) - darkest) * WHITE, span), 0, WHITE
    )
    return stretched


def _is_object(photo: np.ndarray) -> np.ndarray:
    """Which pixels show the object, (height, width) bool."""
    is_object: np.ndarray = photo >= OBJECT
    return is_object


def _most_frequent(tone: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    """The most frequent tone among the counted pixels of each neighbourhood of 3 x 3.

    Of several it is the darkest.
    """
    counts = []
    for level in range(len(TONES)):
        counts.append(_sum_of_neighbourhood((tone == level) & is_counted))
    tones: np.ndarray = np.argmax(counts, axis=0)
    return tones


def _sum_of_neighbourhood(mask: np.ndarray) -> np.ndarray:
    """Number of pixels of a mask in each neighbourhood of 3 x 3."""
    padded = np.pad(mask.astype(np.int64), 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    sums: np.ndarray = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return sums


def _grow(mask: np.ndarray) -> np.ndarray:
    """A mask and the pixels to the left, to the right, above and below of it."""
    padded = np.pad(mask, 1)
    grown = mask.copy()
    for down, right in NEIGHBOURS:
        height, width = mask.shape
        grown |= padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
    return grown


def drawing(photo: np.ndarray, seed: str) -> np.ndarray:
    """A soft pencil drawing on grained paper: outlines, and shading by slanting lines.

    Outlines are where the photo is darker than its surroundings (dodge and burn: the photo divided
    by its blurred self). Where the object is grey there are lines, where it is dark there are lines
    in both directions.
    """
    height, width = photo.shape
    grey = photo.astype(np.int64)
    is_object = _is_object(photo)
    on_paper = np.where(is_object, _stretch(photo), WHITE)
    surroundings = np.maximum(1, blur(on_paper, UNIT))
    outline = np.minimum(WHITE, divide(on_paper * WHITE, surroundings))
    contour = _grow(is_object) & ~is_object
    row = np.arange(height)[:, np.newaxis]
    column = np.arange(width)[np.newaxis, :]
    is_hatched = ((row + column) % 4 == 0) & (grey < MEDIUM)
    is_cross_hatched = ((row - column) % 4 == 0) & (grey < DARK)
    is_shaded = (is_hatched | is_cross_hatched) & is_object
    ink = (WHITE - outline) // 2 + 150 * contour + 90 * is_shaded
    grain = hashed_bytes(seed, photo.shape) // 8
    return to_picture(WHITE - 8 - grain - ink * (160 + 2 * grain) // 192)


def background(photo: np.ndarray, seed: str) -> np.ndarray:
    """Coloured clouds behind the object, in place of black."""
    height, width = photo.shape
    channels = [clouds(f"{seed}/channel {channel}", height, width) for channel in range(3)]
    behind = np.stack(channels, axis=-1)
    # Dark pixels at the border of the object are a mixture of it and what is behind.
    opacity = np.minimum(UNIT, photo.astype(np.int64) * 6)[..., np.newaxis]
    in_front = photo.astype(np.int64)[..., np.newaxis]
    return to_picture(divide(in_front * opacity + behind * (UNIT - opacity), UNIT))


def tilted(photo: np.ndarray, seed: str) -> np.ndarray:
    """The object turned by 15 to 60 degrees to either side, and smaller, anywhere.

    Its sides are 50 to 80 % as long.
    """
    turn = hashed_number(f"{seed}/turn", SMALLEST_TURN, LARGEST_TURN)
    direction = 2 * hashed_number(f"{seed}/direction", 0, 1) - 1
    scale = hashed_number(f"{seed}/scale", UNIT // 2, UNIT * 4 // 5)
    # A turned object keeps inside of the picture if it is shifted by less than what is left.
    height, width = photo.shape
    room = (UNIT - scale) * min(height, width) // 4
    down = hashed_number(f"{seed}/down", -room, room)
    right = hashed_number(f"{seed}/right", -room, room)
    return to_picture(turn_and_scale(photo, direction * turn, scale, (down, right)))


def recoloured(photo: np.ndarray, seed: str) -> np.ndarray:
    """The greys replaced by a gradient between three colours, for black, middle grey and white."""
    palette = _palette(seed)
    grey = photo.astype(np.int64)[..., np.newaxis]
    is_dark = grey < 128
    first_colour = np.where(is_dark, palette[0], palette[1])
    second_colour = np.where(is_dark, palette[1], palette[2])
    share = np.where(is_dark, grey, grey - 128) * 2
    return to_picture(divide(first_colour * (UNIT - share) + second_colour * share, UNIT))


def _palette(seed: str) -> np.ndarray:
    """Three colours, (3, 3) integers; brightness rises or falls from the first to the last.

    The largest step is from the first to the second, which tells the object from what was black.
    """
    colours = hashed_bytes(f"{seed}/colours", (3, 3)) * 2 // 5
    brightness = np.array([0, 100, 153])
    if hashed_number(f"{seed}/order", 0, 1):
        brightness = 153 - brightness
    palette: np.ndarray = colours + brightness[:, np.newaxis]
    return palette


RENDITIONS: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "plain": plain,
    "edges": edges,
    "cartoon": cartoon,
    "drawing": drawing,
    "background": background,
    "tilted": tilted,
    "recoloured": recoloured,
}
