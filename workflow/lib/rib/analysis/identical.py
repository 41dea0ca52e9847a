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


def identical_table(
    *,
    datasets: Mapping[str, str],
    indexes: Sequence[Path],
    classes: Sequence[Path],
) -> pd.DataFrame:
    """Numbers of identical images of each dataset, which the log has too if there are any.

    Args:
        datasets: labels by name, in the order of indexes and classes.

    Returns:
        One row per dataset: dataset, images, identical (to another image of the dataset), shared
        (identical to an image of another dataset), shared_with (labels of these, with the number of
        images), other_class (identical to an image of another class, of any dataset). Numbers are
        empty if an index does not say which images are identical.
    """
    photos = dict(zip(datasets, map(read_identities, indexes), strict=True))
    outputs = dict(zip(datasets, map(_outputs_of_images, indexes, classes), strict=True))
    conflicting = _of_other_classes(photos, outputs)
    lines = []
    for name, label in datasets.items():
        own = photos[name]
        images_shared_with = {
            datasets[other]: identical_to(own, theirs) for other, theirs in photos.items() if other != name
        }
        in_another = np.zeros(len(own), bool)
        for images in images_shared_with.values():
            in_another |= images
        shared_with = ", ".join(
            f"{other} {images.sum()}" for other, images in images_shared_with.items() if images.any()
        )
        flags = identical_images(own), in_another, conflicting[name]
        identical, shared, other_class = (int(images.sum()) for images in flags)
        if identical or shared:
            said = "%s: %d images are identical to another, %d to one of another dataset (%s), "
            said += "%d to one of another class"
            log.info(said, label, identical, shared, shared_with or "none", other_class)
        known = own.null_count == 0
        numbers = (identical, shared, shared_with, other_class) if known else (None,) * 4
        lines.append((name, len(own), *numbers))
    table = pd.DataFrame(lines, columns=COLUMNS)
    return table.astype(dict.fromkeys(["identical", "shared", "other_class"], "Int64"))


def _outputs_of_images(index: Path, classes: Path) -> np.ndarray:
    """The network outputs of each image's class, as text: (n,). Classes with the same are the same."""
    space = LabelSpace.from_json(read_json(classes))
    labels = pq.read_table(index, columns=["label"])["label"].to_numpy()
    return np.array([" ".join(map(str, outputs)) for outputs in space.indices])[labels]


def _of_other_classes(photos: Mapping[str, pa.Array], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which images of each dataset are identical to one of another class: (n,) bool."""
    _, classes = np.unique(np.concatenate([*outputs.values()]), return_inverse=True)
    conflicting = of_other_classes(pa.concat_arrays(photos.values()), classes)
    ends = np.cumsum([len(own) for own in photos.values()])[:-1]
    return dict(zip(photos, np.split(conflicting, ends), strict=True))
