"""Pictures of 8 x 8 handwritten digits: dark ink on white paper, enlarged to a canvas."""

import numpy as np
from PIL import Image

from rib.config.geometry import Geometry
from rib.data.images import resize_and_crop

LEVELS = 16  # ink levels; 0 is paper
MARGIN = 1  # pixels of paper around the 8 x 8 pixels, in which ink reaches the edge
CANVAS = 64  # side in pixels of the canvas for variants, for any geometry


def on_paper(ink: np.ndarray) -> np.ndarray:
    """Enlarge a digit: (CANVAS, CANVAS) uint8, in which 255 is paper.

    Args:
        ink: (8, 8) integers from 0 (paper) to 16.
    """
    with_margin = np.pad(ink, MARGIN)
    grey = (255 - with_margin * 255 // LEVELS).astype(np.uint8)
    canvas = Image.fromarray(grey).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    return np.asarray(canvas)


def to_geometry(picture: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Resize a picture to a geometry: (size, size, 3) uint8.

    Args:
        picture: (side, side) or (side, side, 3) uint8.
    """
    return resize_and_crop(Image.fromarray(picture).convert("RGB"), geometry)
