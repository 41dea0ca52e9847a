"""Renditions of the photos of any other layout, computed here."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rib.base.errors import UserError
from rib.data.images import DatasetSource, Item
from rib.data.layouts._photos import items_of_photos, picture_at_geometry
from rib.data.photo_renditions import RENDITIONS


def items(dataset: DatasetSource, *, photos: dict[str, Any], rendition: str) -> Iterator[Item]:
    """Yield the images of another layout in a rendition.

    Photos are rendered after resizing. Random values depend only on the photo's source and the
    rendition.

    Args:
        photos: the other layout: `{"layout": "nips2017", "settings": {}}`.
        rendition: a key of `rib.data.photo_renditions.RENDITIONS`.

    Raises:
        UserError: there is no such rendition, a photo can't be decoded, or the other layout fails.
    """
    if rendition not in RENDITIONS:
        raise UserError(
            f"{dataset}: there is no rendition '{rendition}'; choose one of "
            f"{', '.join(RENDITIONS)} in its settings."
        )
    for item in items_of_photos(dataset, photos):
        photo = picture_at_geometry(item, dataset)
        picture = RENDITIONS[rendition](photo, f"{rendition}/{item.source_id}")
        yield replace(item, picture=picture, original=None)
