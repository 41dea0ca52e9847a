"""Normalised compression distance (NCD) between datasets, computed from pixels without a model."""

import itertools
import lzma
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.data.data_settings import DatasetView
from rib.data.splits import TEST
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, load_dataset

PRESET = 6  # LZMA preset; higher ones are slower and, with a custom window, hardly better
SMALLEST_WINDOW = 4096  # bytes, LZMA's minimum


def compressed_size(data: bytes) -> int:
    """LZMA-compressed size in bytes.

    The window covers all the data, so the second of two datasets can refer to all of the first.
    """
    window = max(SMALLEST_WINDOW, len(data))
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": window}
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=[lzma2]))


def normalised_distance(first: int, second: int, concatenated: int) -> float:
    """Compression distance (NCD) from the compressed sizes of two datasets and of both together.

    It ranges from about 0 (equal) to about 1 (nothing shared).

    Source: Cilibrasi & Vitanyi 2005 (Clustering by compression), section VI.
    """
    return (concatenated - min(first, second)) / max(first, second)


def compression_table(images: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Compression distance (NCD) of all pairs of datasets.

    Columns: first, second, distance (always ncd), value (about 0 to 1), n (images of each), note.

    Args:
        images: (n, side, side, 3) uint8 by dataset, all of the same shape.
    """
    pixels = {name: dataset_images.tobytes() for name, dataset_images in images.items()}
    sizes = {name: compressed_size(dataset_pixels) for name, dataset_pixels in pixels.items()}
    n, side, _, _ = next(iter(images.values())).shape
    megabytes = 3 * n * side**2 / 1e6
    note = f"LZMA of {megabytes:.1f} MB per set, {side} px, window of both"
    pairs = list(itertools.combinations(images, 2))
    rows = []
    for first, second in Progress(pairs, desc="compressing", unit="pair"):
        concatenated = compressed_size(pixels[first] + pixels[second])
        distance = normalised_distance(sizes[first], sizes[second], concatenated)
        rows.append((first, second, "ncd", distance, n, note))
    return pd.DataFrame(rows, columns=["first", "second", "distance", "value", "n", "note"])


def compression_of(
    datasets: Sequence[DatasetFiles], view: DatasetView, megabytes: float
) -> pd.DataFrame:
    """Compression distance (NCD) of all pairs of datasets, from equally many images of each.

    There are as many images as the smallest dataset has and `megabytes` allow, from the test split
    if there is one. Columns: first, second, distance (ncd), value, n, note.

    Args:
        view: which images are used, at what size.
        megabytes: most pixels per dataset.

    Raises:
        UserError: not a single image fits into the megabytes.
    """
    loaded = [load_dataset(files, view, TEST) for files in datasets]
    assert view.geometry is not None  # None only without pixels
    side = view.geometry.size
    bytes_per_image = 3 * side**2
    within_budget = int(1e6 * megabytes) // bytes_per_image
    n = min(within_budget, *(len(dataset.labels) for dataset in loaded))
    if n == 0:
        raise UserError(
            f"distances.compressed_megabytes: an image of {side} px takes "
            f"{bytes_per_image / 1e6:.2f} MB; set at least that."
        )
    images = {}
    for dataset in loaded:
        chosen = first_images(dataset, n)
        assert chosen.images is not None
        rows = slice(None) if chosen.rows is None else chosen.rows
        images[chosen.name] = chosen.images[rows]
    return compression_table(images)
