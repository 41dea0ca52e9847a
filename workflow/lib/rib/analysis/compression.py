"""Normalised compression distance (NCD) between datasets, computed from pixels without a model."""

import itertools
import lzma
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.data.splits import TEST
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, DatasetView, load_dataset

PRESET = 6  # LZMA preset; higher ones are slower and, with a custom window, hardly better
SMALLEST_WINDOW = 4096  # bytes, LZMA's minimum


def compressed_size(data: bytes) -> int:
    """LZMA-compressed size in bytes, with a window that covers all the data."""
    filters = [
        {"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": max(SMALLEST_WINDOW, len(data))}
    ]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))


def normalised_distance(first: int, second: int, both: int) -> float:
    """NCD from the compressed sizes of two datasets and of their concatenation: about 0 (equal) to 1 (nothing shared).

    Source: Cilibrasi & Vitanyi 2005 (Clustering by compression), section VI.
    """
    return (both - min(first, second)) / max(first, second)


def compression_table(images: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """NCD of all pairs of datasets, (n, size, size, 3) uint8 each: first, second, distance (ncd), value, n, note."""
    data = {name: pixels.tobytes() for name, pixels in images.items()}
    alone = {name: compressed_size(part) for name, part in data.items()}
    n, side, *_ = next(iter(images.values())).shape
    note = f"LZMA of {3 * n * side**2 / 1e6:.1f} MB per set, {side} px, window of both"
    lines = []
    for first, second in Progress(
        list(itertools.combinations(data, 2)), desc="compressing", unit="pair"
    ):
        both = compressed_size(data[first] + data[second])
        lines.append(
            (first, second, "ncd", normalised_distance(alone[first], alone[second], both), n, note)
        )
    return pd.DataFrame(lines, columns=["first", "second", "distance", "value", "n", "note"])


def compression_of(
    *, datasets: Sequence[DatasetFiles], view: DatasetView, megabytes: float
) -> pd.DataFrame:
    """`compression_table` of as many images as the smallest dataset has and the budget allows.

    The test split is used where there is one. Raises a UserError if no image fits the budget, `megabytes` of pixels.
    """
    loaded = [load_dataset(files, view, TEST) for files in datasets]
    side, each = view.geometry.size, 3 * view.geometry.size**2  # pixels, bytes
    n = min(int(1e6 * megabytes) // each, *(len(dataset.labels) for dataset in loaded))
    if not n:
        raise UserError(
            f"distances.compressed_megabytes: an image of {side} px takes {each / 1e6:.2f} MB; set at least that."
        )
    chosen = [subset(dataset, str(n)) for dataset in loaded]
    images = {
        part.name: part.images[slice(None) if part.rows is None else part.rows] for part in chosen
    }
    return compression_table(images)
