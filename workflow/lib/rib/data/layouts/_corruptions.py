"""Corruptions of drawings, named as the same kinds are in Hendrycks and Dietterich 2019 (arXiv 1903.12261)."""

import numpy as np
from skimage import exposure, filters, transform, util

# At severities 1 to 5, for drawings: most are stronger than those of ImageNet-C.
STRENGTHS = {
    "gaussian_noise": (0.006, 0.015, 0.03, 0.07, 0.15),  # variance; white is 1
    "impulse_noise": (0.03, 0.06, 0.1, 0.17, 0.3),  # fraction of the values that become 0 or 1
    "gaussian_blur": (
        0.5 / 64,
        1 / 64,
        2 / 64,
        4 / 64,
        6 / 64,
    ),  # standard deviation over the picture's side
    "contrast": (
        (0.07, 0.92),
        (0.14, 0.84),
        (0.21, 0.76),
        (0.28, 0.68),
        (0.35, 0.6),
    ),  # what black and white become
    "rotation": (7, 14, 21, 28, 35),  # degrees, to either side
}


def corrupt(
    picture: np.ndarray, corruption: str, severity: int, random: np.random.Generator
) -> np.ndarray:
    """Corrupt a picture on white, (side, side) or (side, side, 3) uint8, with a key of `STRENGTHS`."""
    image, strength = util.img_as_float64(picture), STRENGTHS[corruption][severity - 1]
    channels = -1 if image.ndim == 3 else None
    made = {
        "gaussian_noise": lambda: util.random_noise(image, "gaussian", rng=random, var=strength),
        "impulse_noise": lambda: util.random_noise(image, "s&p", rng=random, amount=strength),
        "gaussian_blur": lambda: filters.gaussian(
            image, sigma=strength * len(image), channel_axis=channels
        ),
        "contrast": lambda: exposure.rescale_intensity(image, in_range=(0, 1), out_range=strength),
        "rotation": lambda: transform.rotate(
            image, float(random.choice([-strength, strength])), cval=1
        ),
    }
    return util.img_as_ubyte(np.clip(made[corruption](), 0, 1))
