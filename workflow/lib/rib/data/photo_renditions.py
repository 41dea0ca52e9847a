"""Renditions of photos in integer arithmetic.

A rendition maps a photo, (height, width, 3) uint8, and a random seed to a picture of the same
shape. Lengths are fractions of a picture's shorter side, so renditions look alike at any size.
"""

from collections.abc import Callable

import numpy as np

from rib.data.integer_images import (
    UNIT,
    blur,
    divide,
    hashed_number,
    scaled,
    to_picture,
    turn_and_scale,
)
from rib.data.renditions import gradient, lines, on_grained_paper, outlines
from rib.data.renditions import recoloured as recoloured_grey

WHITE = 255
MIDDLE_GREY = 128
SIDE = 128  # lengths are stated for a shorter side of so many pixels
PAINT_BLUR = UNIT // 2  # 1/256 pixel, of a cartoon's colours
LINE_BLUR = UNIT // 2  # 1/256 pixel; small textures make no lines
LINE = 240  # gradient above which a cartoon has a line
LEVELS = 6  # of each channel in a cartoon
PENCIL_BLUR = 4 * UNIT  # width of a pencil's outlines
DARK = 80  # drawings are hatched below this grey
HATCH = 5  # pixels between lines that shade
SMALLEST_TURN = 15  # degrees, to either side
LARGEST_TURN = 60
SMALLEST_SCALE = UNIT * 3 // 5
LARGEST_SCALE = UNIT * 9 // 10


def grey(photo: np.ndarray) -> np.ndarray:
    """Luminance of a photo, (height, width) uint8: 0.299 red, 0.587 green, 0.114 blue (BT.601)."""
    red, green, blue = np.moveaxis(photo.astype(np.int64), -1, 0)
    return to_picture(divide(299 * red + 587 * green + 114 * blue, 1000))


def edges(photo: np.ndarray, seed: str) -> np.ndarray:
    """Grey lines on white paper, the darker the faster grey changes; nothing is random."""
    change_down, change_right = gradient(grey(photo).astype(np.int64))
    change = np.abs(change_down) + np.abs(change_right)
    return _in_three_channels(WHITE - divide(change, 2))


def cartoon(photo: np.ndarray, seed: str) -> np.ndarray:
    """Flat colours, six levels of each channel, with black lines; nothing is random."""
    smooth = np.clip(blur(photo, _scaled(PAINT_BLUR, photo)), 0, WHITE)
    level = np.minimum(smooth * LEVELS // (WHITE + 1), LEVELS - 1)
    flat = divide(level * WHITE, LEVELS - 1)
    is_line = lines(grey(photo), _scaled(LINE_BLUR, photo), LINE)
    return to_picture(np.where(is_line[..., np.newaxis], 0, flat))


def drawing(photo: np.ndarray, seed: str) -> np.ndarray:
    """A pencil drawing on grained paper: outlines, and slanting lines where the photo is dark.

    Outlines are where the photo is darker than its surroundings (dodge and burn: the photo divided
    by its blurred self).
    """
    tones = grey(photo).astype(np.int64)
    outline = outlines(tones, _scaled(PENCIL_BLUR, photo))
    height, width = tones.shape
    row = np.arange(height)[:, np.newaxis]
    column = np.arange(width)[np.newaxis, :]
    spacing = max(2, _scaled(HATCH, photo))
    is_shaded = ((row + column) % spacing == 0) & (tones < DARK)
    ink = (WHITE - outline) * 3 // 2 + 90 * is_shaded
    return _in_three_channels(on_grained_paper(ink, seed))


def recoloured(photo: np.ndarray, seed: str) -> np.ndarray:
    """Greys replaced by a gradient between three random colours."""
    return recoloured_grey(grey(photo), seed)


def tilted(photo: np.ndarray, seed: str) -> np.ndarray:
    """The photo turned by 15 to 60 degrees, with sides of 60 to 90 %, on grey."""
    degrees = hashed_number(f"{seed}/turn", SMALLEST_TURN, LARGEST_TURN)
    is_clockwise = hashed_number(f"{seed}/direction", 0, 1) == 1
    scale = hashed_number(f"{seed}/scale", SMALLEST_SCALE, LARGEST_SCALE)
    turn = degrees if is_clockwise else -degrees
    return to_picture(turn_and_scale(photo, turn, scale, (0, 0), MIDDLE_GREY))


def _in_three_channels(picture: np.ndarray) -> np.ndarray:
    """A grey picture, (height, width) integers, as (height, width, 3) uint8."""
    return np.repeat(to_picture(picture)[..., np.newaxis], 3, axis=-1)


def _scaled(length: int, photo: np.ndarray) -> int:
    """A length at the photo's size: 256 stays 256 at a side of 128 pixels, 512 at 256."""
    return scaled(length, photo, SIDE)


RENDITIONS: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "edges": edges,
    "cartoon": cartoon,
    "drawing": drawing,
    "recoloured": recoloured,
    "tilted": tilted,
}
