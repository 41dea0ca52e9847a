"""Renditions of small grey images of a bright object on black, in integer arithmetic.

A rendition maps an image, (height, width) uint8, and a random seed to a picture of the same size,
(height, width[, 3]) uint8. Constants suit about 32 x 32 pixels.
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
OBJECT = 24  # lowest grey of the object
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))
LINE = 72  # gradient above which there is a line
TONES = (104, 180, 256)  # shares of a cartoon's colour in 1/256, from dark to bright
MEDIUM = 184  # drawings are hatched below this grey
DARK = 112  # and cross-hatched below this one
LARGEST_TURN = 60  # degrees, to either side
SMALLEST_TURN = 15


def plain(image: np.ndarray, seed: str) -> np.ndarray:
    """The image as it is; the seed is unused."""
    return image


def edges(image: np.ndarray, seed: str) -> np.ndarray:
    """Black lines on white paper where grey changes fast: (height, width) uint8, 0 or 255.

    Sobel's gradient with non-maximum suppression (Canny 1986): a pixel is on a line if no neighbour
    across the line has a larger gradient. All renditions get a seed; this one has nothing random.

    Args:
        image: (height, width) grey, uint8.
    """
    is_line = lines(image, UNIT // 4, LINE)
    return np.where(is_line, 0, WHITE).astype(np.uint8)


def lines(image: np.ndarray, radius: int, threshold: int) -> np.ndarray:
    """Mask of the lines along which grey changes fast: (height, width) bool, one pixel wide.

    Args:
        image: (height, width) grey, uint8.
        radius: of the blur before, in 1/256 pixel, as in `blur`.
        threshold: gradient (Sobel, both directions together) above which there is a line; a step
            from black to white has 1020.
    """
    smooth = blur(image, radius)
    change_down, change_right = gradient(smooth)
    change = np.abs(change_down) + np.abs(change_right)
    # Gradients of the four neighbours; zero outside the image.
    padded = np.pad(change, 1)
    change_above = padded[:-2, 1:-1]
    change_below = padded[2:, 1:-1]
    change_on_left = padded[1:-1, :-2]
    change_on_right = padded[1:-1, 2:]
    # If grey changes downwards, the neighbours across the line are above and below. Of two equal
    # neighbours one is on the line, hence >= on one side and > on the other.
    is_largest_in_column = (change >= change_above) & (change > change_below)
    is_largest_in_row = (change >= change_on_left) & (change > change_on_right)
    changes_mostly_down = np.abs(change_down) > np.abs(change_right)
    is_largest = np.where(changes_mostly_down, is_largest_in_column, is_largest_in_row)
    is_line: np.ndarray = is_largest & (change > threshold)
    return is_line


def gradient(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel's filters, downwards and to the right: (height, width) each, -1020 to 1020."""
    padded = np.pad(image, 1, mode="edge")
    # Each pixel with its neighbours in the row, weighted 1, 2, 1.
    smooth_along_rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    change_down = smooth_along_rows[2:] - smooth_along_rows[:-2]
    # The same with its neighbours in the column.
    smooth_along_columns = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    change_right = smooth_along_columns[:, 2:] - smooth_along_columns[:, :-2]
    return change_down, change_right


def cartoon(image: np.ndarray, seed: str) -> np.ndarray:
    """Black lines and three flat tones of one colour, on paper of another colour.

    The object's greys are stretched to the full range; each pixel gets the most frequent tone among
    3 x 3 pixels. Lines are as in `edges`.
    """
    is_object = _is_object(image)
    # tone numbers, 0 for the darkest
    tone_of_grey = np.minimum(_stretch(image) * len(TONES) // (WHITE + 1), len(TONES) - 1)
    tone = _most_frequent(tone_of_grey, is_object)
    share_of_colour = np.array(TONES)[tone]
    # Random RGB: 96 to 255 for the object, 176 to 255 for paper.
    colour = 96 + hashed_bytes(f"{seed}/colour", (3,)) * 5 // 8
    paper = 176 + hashed_bytes(f"{seed}/paper", (3,)) * 5 // 16
    flat_colour = divide(share_of_colour[..., np.newaxis] * colour, UNIT)
    on_paper = np.where(is_object[..., np.newaxis], flat_colour, paper)
    is_line = edges(image, seed) == 0
    with_lines = np.where(is_line[..., np.newaxis], 0, on_paper)
    return to_picture(with_lines)


def _stretch(image: np.ndarray) -> np.ndarray:
    """The object's darkest grey becomes 0, its brightest 255; greys beyond are clipped."""
    grey = image.astype(np.int64)
    greys_of_object = grey[_is_object(image)]
    if greys_of_object.size == 0:
        return grey
    darkest = int(greys_of_object.min())
    brightest = int(greys_of_object.max())
    span = max(1, brightest - darkest)
    stretched: np.ndarray = np.clip(divide((grey - darkest) * WHITE, span), 0, WHITE)
    return stretched


def _is_object(image: np.ndarray) -> np.ndarray:
    """Mask of the object, which is brighter than the black around it."""
    is_object: np.ndarray = image >= OBJECT
    return is_object


def _most_frequent(tone: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    """Most frequent tone (0, 1 or 2) among the counted ones of 3 x 3 pixels: (height, width).

    Of equally frequent tones, the darkest.
    """
    counts = []  # count of each tone around each pixel
    for number in range(len(TONES)):
        has_tone = (tone == number) & is_counted
        counts.append(_sum_of_neighbourhood(has_tone))
    tones: np.ndarray = np.argmax(counts, axis=0)
    return tones


def _sum_of_neighbourhood(mask: np.ndarray) -> np.ndarray:
    """Number of pixels in the mask among the 3 x 3 around each one: (height, width) int64."""
    padded = np.pad(mask.astype(np.int64), 1, mode="edge")
    above_to_below = padded[:-2] + padded[1:-1] + padded[2:]
    sums: np.ndarray = above_to_below[:, :-2] + above_to_below[:, 1:-1] + above_to_below[:, 2:]
    return sums


def _grow(mask: np.ndarray) -> np.ndarray:
    """The mask with the four direct neighbours of each of its pixels."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    grown = mask.copy()
    for down, right in NEIGHBOURS:
        top = 1 + down
        left = 1 + right
        neighbour = padded[top : top + height, left : left + width]
        grown |= neighbour
    return grown


def drawing(image: np.ndarray, seed: str) -> np.ndarray:
    """A soft pencil drawing on grained paper: outlines, and shading by slanting lines.

    Outlines are where the image is darker than its surroundings (dodge and burn: the image divided
    by its blurred self).
    """
    grey = image.astype(np.int64)
    is_object = _is_object(image)
    on_paper = np.where(is_object, _stretch(image), WHITE)
    outline = outlines(on_paper, UNIT)
    is_contour = _grow(is_object) & ~is_object  # pixels just outside the object
    is_shaded = _is_on_slanting_line(grey) & is_object
    ink = (WHITE - outline) // 2 + 150 * is_contour + 90 * is_shaded
    return on_grained_paper(ink, seed)


def outlines(image: np.ndarray, radius: int) -> np.ndarray:
    """Greys that are dark where an image is darker than its surroundings: dodge and burn.

    Args:
        image: (height, width) integers from 0 to 255.
        radius: of the surroundings, in 1/256 pixel, as in `blur`.
    """
    surroundings = np.maximum(1, blur(image, radius))
    outline: np.ndarray = np.minimum(WHITE, divide(image * WHITE, surroundings))
    return outline


def on_grained_paper(ink: np.ndarray, seed: str) -> np.ndarray:
    """Ink on paper that is slightly grey and takes more ink where it is darker, uint8.

    Args:
        ink: (height, width) integers from 0, for none.
        seed: of the paper's grain.
    """
    grain = hashed_bytes(seed, ink.shape) // 8
    paper = WHITE - 8 - grain
    return to_picture(paper - ink * (160 + 2 * grain) // 192)


def _is_on_slanting_line(grey: np.ndarray) -> np.ndarray:
    """Mask of diagonals, four pixels apart, that shade: one way below MEDIUM, both below DARK."""
    height, width = grey.shape
    row = np.arange(height)[:, np.newaxis]
    column = np.arange(width)[np.newaxis, :]
    is_hatched = ((row + column) % 4 == 0) & (grey < MEDIUM)
    is_cross_hatched = ((row - column) % 4 == 0) & (grey < DARK)
    is_on_line: np.ndarray = is_hatched | is_cross_hatched
    return is_on_line


def background(image: np.ndarray, seed: str) -> np.ndarray:
    """Coloured clouds behind the object, in place of black."""
    height, width = image.shape
    channels = [clouds(f"{seed}/channel {channel}", height, width) for channel in range(3)]
    behind = np.stack(channels, axis=-1)
    # Black shows only clouds, greys from 43 on only the object. Darker greys, at the object's
    # border, mix both.
    opacity = np.minimum(UNIT, image.astype(np.int64) * 6)[..., np.newaxis]
    in_front = image.astype(np.int64)[..., np.newaxis]
    return to_picture(divide(in_front * opacity + behind * (UNIT - opacity), UNIT))


def tilted(image: np.ndarray, seed: str) -> np.ndarray:
    """The object turned by 15 to 60 degrees, with sides of 50 to 80 %, anywhere."""
    degrees = hashed_number(f"{seed}/turn", SMALLEST_TURN, LARGEST_TURN)
    is_clockwise = hashed_number(f"{seed}/direction", 0, 1) == 1
    if not is_clockwise:
        degrees = -degrees
    scale = hashed_number(f"{seed}/scale", UNIT // 2, UNIT * 4 // 5)
    # The object stays inside the picture if the shift is within the free margin.
    height, width = image.shape
    room = (UNIT - scale) * min(height, width) // 4
    down = hashed_number(f"{seed}/down", -room, room)
    right = hashed_number(f"{seed}/right", -room, room)
    return to_picture(turn_and_scale(image, degrees, scale, (down, right)))


def recoloured(image: np.ndarray, seed: str) -> np.ndarray:
    """Greys replaced by a gradient between three colours, for black, middle grey and white."""
    colour_for_black, colour_for_middle_grey, colour_for_white = _palette(seed)
    grey = image.astype(np.int64)[..., np.newaxis]
    is_dark = grey < 128
    # Mix the two nearest of the three colours, in 1/256.
    colour_below = np.where(is_dark, colour_for_black, colour_for_middle_grey)
    colour_above = np.where(is_dark, colour_for_middle_grey, colour_for_white)
    share_above = np.where(is_dark, grey, grey - 128) * 2
    mixture = colour_below * (UNIT - share_above) + colour_above * share_above
    return to_picture(divide(mixture, UNIT))


def _palette(seed: str) -> np.ndarray:
    """Random RGB colours for black, middle grey and white, (3, 3); brightness rises or falls."""
    colours = hashed_bytes(f"{seed}/colours", (3, 3)) * 2 // 5  # dark random colours, 0 to 102
    brightness = np.array([0, 100, 153])  # added to each colour
    is_falling = hashed_number(f"{seed}/order", 0, 1) == 1
    if is_falling:
        brightness = 153 - brightness
    # The first step is largest: it separates the object from the former black.
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
