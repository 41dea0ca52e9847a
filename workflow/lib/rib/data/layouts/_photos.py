"""Images of another layout at the geometry at which datasets are drawn."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rib.base.plugins import checked_settings, load_function
from rib.data.images import DatasetSource, Item, Photo, decode, resize_and_crop


def items_of_photos(dataset: DatasetSource, photos: Mapping[str, Any]) -> Iterator[Item]:
    """The images of another layout, of this dataset's archives.

    Args:
        photos: the other layout: `{"layout": "idx", "settings": {"part": "t10k"}}`.

    Raises:
        UserError: the settings don't fit the other layout, or it fails.
    """
    assert dataset.photos_layout is not None  # the catalogue gives the file of `photos`
    items_of_layout = load_function(dataset.photos_layout, "items")
    settings = checked_settings(
        items_of_layout,
        photos.get("settings", {}),
        dataset.photos_layout,
        f"datasets.yaml, {dataset}, photos",
    )
    items: Iterator[Item] = items_of_layout(dataset, **settings)
    return items


def picture_at_geometry(item: Item, dataset: DatasetSource) -> np.ndarray:
    """(size, size, 3) uint8; only photos are resized, as drawings have this size already."""
    if not isinstance(item.picture, Photo):  # the layout has drawn it at this size
        return item.picture
    photo = item.picture
    image = decode(photo.read(), photo.name, photo.border)
    return resize_and_crop(image, dataset.drawing_geometry)
