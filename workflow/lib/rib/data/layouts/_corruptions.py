"""Corruptions of the digits family, named as the same kinds are in Hendrycks and Dietterich 2019.

arXiv 1903.12261. Those of other datasets are in rib.data.corruptions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from skimage import exposure, filters, transform, util

# At severities 1 to 5, for drawings: most are stronger than those of ImageNet-C.
STRENGTHS: dict[str, Sequence[Any]] = {
    # variance; white is 1
    "gaussian_noise": (0.006, 0.015, 0.03, 0.07, 0.15),
    # fraction of the values that become 0 or 1
    "impulse_noise": (0.03, 0.06, 0.1, 0.17, 0.3),
    # standard deviation over the picture's side
    "gaussian_blur": (0.5 / 64, 1 / 64, 2 / 64, 4 / 64, 6 / 64),
    # what black and white become
    "contrast": ((0.07, 0.92), (0.14, 0.84), (0.21, 0.76), (0.28, 0.68), (0.35, 0.6)),
    # degrees, to either side
    "rotation": (7, 14, 21, 28, 35),
}


def corrupt(
    picture: np.ndarray, corruption: str, severity: int, random: np.random.Generator
) -> np.ndarray:
    """Corrupt a picture on white, (side, side) or (side, side, 3) uint8.

    Args:
        corruption: a key of `STRENGTHS`.
        severity: 1 to 5.
        random: from which noise and the direction of a rotation are drawn.

    Returns:
        An array like the picture.
    """
    image = util.img_as_float64(picture)
    strength = STRENGTHS[corruption][severity - 1]
    if corruption == "gaussian_noise":
        corrupted = util.random_noise(image, "gaussian", rng=random, var=strength)
    elif corruption == "impulse_noise":
        corrupted = util.random_noise(image, "s&p", rng=random, amount=strength)
    elif corruption == "gaussian_blur":
        side = len(image)
        channel_axis = -1 if image.ndim == 3 else None
        corrupted = filters.gaussian(image, sigma=strength * side, channel_axis=channel_axis)
    elif corruption == "contrast":
        corrupted = exposure.rescale_intensity(image, in_range=(0, 1), out_range=strength)
    else:
        degrees = float(random.choice([-strength, strength]))
        corrupted = transform.rotate(image, degrees, cval=1)
    corrupted_picture: np.ndarray = util.img_as_ubyte(np.clip(corrupted, 0, 1))
    return corrupted_picture
