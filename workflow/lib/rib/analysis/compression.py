"""Normalised compression distance between datasets: how much their pixels have in common, without any model."""

import itertools
import lzma
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rib.data.splits import TEST, opened, part, subset
from rib.io import Progress, UserError, write_table

PRESET = 6  # of LZMA; a higher one takes longer and, with a window of our own, finds little more
SMALLEST_WINDOW = 4096  # bytes, of LZMA


def compressed_size(data: bytes) -> int:
    """Bytes of data under LZMA, whose window holds all of it: the end can refer to the beginning."""
    window = max(SMALLEST_WINDOW, len(data))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": window}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))


def normalised_distance(first: int, second: int, both: int) -> float:
    """NCD from the compressed sizes of two sets and of one behind the other: about 0 (equal) to 1 (nothing shared).

    Source: Cilibrasi & Vitanyi 2005 (Clustering by compression), section VI.
    """
    return (both - min(first, second)) / max(first, second)


def compression_table(images: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """NCD between every two datasets: first, second, distance (ncd), value, n (images of each), note.

    Args:
        images: by dataset (n, size, size, 3) uint8, n the same in all.
    """
    data = {name: pixels.tobytes() for name, pixels in images.items()}
    pairs = list(itertools.combinations(data, 2))
    alone = {name: compressed_size(part) for name, part in data.items()}
    lines = []
    for first, second in Progress(pairs, desc="compressing", unit="pair"):
        both = compressed_size(data[first] + data[second])
        value = normalised_distance(alone[first], alone[second], both)
        _, side, *_ = images[first].shape
        note = f"LZMA of {len(data[first]) / 1e6:.1f} MB per set, {side} px, window of both"
        lines.append((first, second, "ncd", value, len(images[first]), note))
    return pd.DataFrame(lines, columns=["first", "second", "distance", "value", "n", "note"])


def write_compression(
    *,
    folders: Mapping[str, Path],
    apart: Mapping[str, Path],
    images: Mapping,
    splits: Mapping[str, Path],
    megabytes: float,
    table: Path,
) -> None:
    """Write `compression_table` as CSV, of as many images as the smallest dataset has and the budget allows.

    Args:
        folders: what the prepare jobs wrote, by dataset.
        apart: folder of the dataset of which a part stands for pretraining, by dataset that shares its sources.
        images: how datasets are seen (rib.data.splits.opened).
        splits: by dataset, its split (protocol `held_out`), of which the test part is taken; empty for all images.
        megabytes: of pixels per dataset.
        table: the CSV.

    Raises:
        UserError: not one image fits the budget.
    """
    datasets = [
        part(opened(folder, name, images, apart.get(name)), TEST, splits.get(name)) for name, folder in folders.items()
    ]
    side = images["geometry"]["size"]
    n = min(int(1e6 * megabytes) // (3 * side**2), *(len(dataset.labels) for dataset in datasets))
    if not n:
        raise UserError(
            f"distances.compressed_megabytes: an image of {side} px takes {3 * side**2 / 1e6:.2f} MB; give at least that."
        )
    chosen = {dataset.name: subset(dataset, str(n)) for dataset in datasets}
    found = compression_table({name: np.asarray(dataset.images[dataset.rows]) for name, dataset in chosen.items()})
    write_table(table, found)
