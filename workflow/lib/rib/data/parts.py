"""Parts of a prepared dataset, each evaluated by a separate job."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.data.dataset import INDEX_COLUMNS, PreparedDataset
from rib.schema.part import DatasetPart, Levels


def check_part(index: Path, part: DatasetPart, other_levels: Levels, where: str) -> None:
    """Check that a part has images at each of its levels, and that every image is in some part.

    Parts divide a dataset by the values (levels) in a column of its index: the part "noise" of
    ImageNet-C has the levels `gaussian_noise`, `shot_noise` and `impulse_noise` of `corruption`.

    Args:
        index: of the prepared dataset.
        other_levels: levels of all other parts, such as `("fog", "snow")`.
        where: file, entry and key, for messages: `datasets.yaml, imagenet_c, parts`.

    Raises:
        UserError: this is not so, or the index lacks the column.
    """
    slices = [name for name in pq.read_schema(index).names if name not in INDEX_COLUMNS]
    if part.column not in slices:
        choice = f"choose from {', '.join(slices)}" if slices else "remove parts"
        raise UserError(f"{where}: the index has no column '{part.column}'; {choice}.")
    levels_of_images = pc.unique(_levels_of_images(index, part)).to_pylist()
    for level in part.levels:
        if level not in levels_of_images:
            raise UserError(
                f"{where}: no image has the {part.column} {level!r}; their levels are "
                f"{_listed(levels_of_images)}."
            )
    levels_of_parts = (*part.levels, *other_levels)
    for level in levels_of_images:
        if level not in levels_of_parts:
            raise UserError(
                f"{where}: images with the {part.column} {level!r} are in no part; add it to one."
            )


def images_of_part(index: Path, part: DatasetPart) -> np.ndarray:
    """Mask of the images in a part, such as fog and snow: (n,) bool for all n prepared images."""
    levels_of_images = _levels_of_images(index, part)
    levels = pa.array(part.levels, levels_of_images.type)
    is_in_part: np.ndarray = pc.is_in(levels_of_images, value_set=levels).to_numpy()
    return is_in_part


def batches_with_part(
    dataset: PreparedDataset, is_in_part: np.ndarray, batch_size: int
) -> PreparedDataset:
    """Images of all batches that contain an image of a part; the first batch if there is none.

    A network's outputs depend on the batch in the last digits. Whole batches give the part's images
    the same outputs as an evaluation of the whole dataset.

    Args:
        dataset: the images to evaluate, in order.
        is_in_part: bool for all images of the prepared dataset, from `images_of_part`; `dataset`
            may have fewer images.
    """
    batch_of_image = np.arange(len(dataset.labels)) // batch_size
    batches = np.unique(batch_of_image[is_in_part[dataset.index["row"]]])
    if len(batches) == 0:
        batches = np.array([0])
    return dataset.take(np.flatnonzero(np.isin(batch_of_image, batches)))


def _levels_of_images(index: Path, part: DatasetPart) -> pa.ChunkedArray:
    """Level of each image, such as `fog`, in the column that divides the dataset."""
    levels = pq.read_table(index, columns=[part.column])[part.column]
    # Texts in the index are numbers with a dictionary.
    if pa.types.is_dictionary(levels.type):
        return levels.cast(levels.type.value_type)
    return levels


def _listed(levels: Sequence[str | int]) -> str:
    """Sorted levels as text: `'fog', 'snow'`."""
    return ", ".join(map(repr, sorted(levels)))
