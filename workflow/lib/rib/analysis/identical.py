"""Identical images of a run's datasets. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.files import read_json
from rib.base.progress import log
from rib.config.label_space import LabelSpace
from rib.data.identity import identical_images, identical_to, of_other_classes, read_identities

COLUMNS = ["dataset", "images", "identical", "shared", "shared_with", "other_class"]


def identical_table(*, datasets: Mapping[str, str], indexes: Sequence[Path], classes: Sequence[Path]) -> pd.DataFrame:
    """Numbers of identical images of each dataset, which the log has too if there are any.

    Args:
        datasets: labels by name, in the order of indexes and classes.

    Returns:
        One row per dataset: dataset, images, identical (to another image of the dataset), shared (identical to an image of
        another dataset), shared_with (labels of these, with the number of images), other_class (identical to an image of
        another class, of any dataset). Numbers are empty if an index does not say which images are identical.
    """
    photos = dict(zip(datasets, map(read_identities, indexes), strict=True))
    conflicting = _of_other_classes(photos, dict(zip(datasets, zip(indexes, classes, strict=True), strict=True)))
    lines = []
    for name, label in datasets.items():
        shared = {other: identical_to(photos[name], photos[other]) for other in datasets if other != name}
        counts = {datasets[other]: int(images.sum()) for other, images in shared.items() if images.any()}
        shared_with = ", ".join(f"{other} {number}" for other, number in counts.items())
        in_others = np.any([*shared.values(), np.zeros(len(photos[name]), bool)], axis=0)
        numbers = [int(flags.sum()) for flags in (identical_images(photos[name]), in_others, conflicting[name])]
        if any(numbers):
            said = (
                "%s: %d images are identical to another, %d to one of another dataset (%s), %d to one of another class"
            )
            log.info(said, label, numbers[0], numbers[1], shared_with or "none", numbers[2])
        known = photos[name].null_count == 0
        identical, in_other, of_other_class = numbers if known else [None] * 3
        lines.append((name, len(photos[name]), identical, in_other, shared_with, of_other_class))
    table = pd.DataFrame(lines, columns=COLUMNS)
    return table.astype(dict.fromkeys(["identical", "shared", "other_class"], "Int64"))


def _of_other_classes(photos: Mapping[str, pa.Array], files: Mapping[str, tuple[Path, Path]]) -> dict[str, np.ndarray]:
    """Which images of each dataset are identical to one of another class: (n,) bool. Classes with the same network outputs
    are the same."""
    classes = {}
    for name, (index, space) in files.items():
        outputs = LabelSpace.from_json(read_json(space)).indices
        labels = pq.read_table(index, columns=["label"])["label"].to_numpy()
        classes[name] = np.array([" ".join(map(str, row)) for row in outputs])[labels]
    numbers = np.unique(np.concatenate([*classes.values()]), return_inverse=True)[1]
    conflicting = of_other_classes(pa.concat_arrays(photos.values()), numbers)
    ends = np.cumsum([len(own) for own in photos.values()])[:-1]
    return dict(zip(photos, np.split(conflicting, ends), strict=True))
