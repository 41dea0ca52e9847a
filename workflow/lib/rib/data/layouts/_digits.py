"""Handwritten digits of 8 x 8 pixels as pictures: dark ink on white paper, on a canvas that variants can work on."""

import numpy as np
from PIL import Image

from rib.data.images import resize_and_crop
from rib.geometry import Geometry

LEVELS = 16  # of ink: 0 is paper
MARGIN = 1  # of paper around the 8 x 8 pixels, which ink reaches to the edge of
CANVAS = 64  # side in pixels on which variants are drawn, whatever the geometry


def on_paper(ink: np.ndarray) -> np.ndarray:
    """Enlarge a digit.

    Args:
        ink: (8, 8) integers from 0 (paper) to 16.

    Returns:
        (CANVAS, CANVAS) uint8, 255 is paper.
    """
    grey = (255 - np.pad(ink, MARGIN) * 255 // LEVELS).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))


def to_geometry(picture: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Bring a picture, (side, side) or (side, side, 3) uint8, to a geometry: (size, size, 3) uint8."""
    return resize_and_crop(Image.fromarray(picture).convert("RGB"), geometry)
