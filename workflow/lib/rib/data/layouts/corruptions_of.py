"""Corruptions of the images of any other layout, computed here."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from rib.base.errors import UserError
from rib.base.plugins import checked_settings, load_function
from rib.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from rib.data.images import DatasetSource, Item, Photo, decode, resize_and_crop


def items(
    dataset: DatasetSource,
    *,
    photos: dict[str, Any],
    corruptions: list[str],
    severities: list[int],
    once: bool = False,
) -> Iterator[Item]:
    """Yield the images of another layout, corrupted; slices are corruption and severity.

    Images are corrupted after resizing, as in ImageNet-C. Random values depend only on the image's
    source and the corruption.

    Args:
        photos: the other layout: `{"layout": "idx", "settings": {"part": "t10k"}}`.
        corruptions: keys of `rib.data.corrupt.CORRUPTIONS`.
        severities: 1 to 5.
        once: whether each image is shown once, with all corruptions and severities in turn and
            equally frequent in every class; otherwise with every corruption at every severity.

    Raises:
        UserError: a corruption or severity does not exist or occurs twice, an image can't be
            decoded, or the other layout fails.
    """
    _refuse_unknown("corruption", corruptions, list(CORRUPTIONS), dataset)
    _refuse_unknown("severity", severities, list(SEVERITIES), dataset)
    assert dataset.photos_layout is not None  # the catalogue gives the file of `photos`
    items_of_layout = load_function(dataset.photos_layout, "items")
    settings = checked_settings(
        items_of_layout,
        photos.get("settings", {}),
        dataset.photos_layout,
        f"datasets.yaml, {dataset}, photos",
    )
    all_pairs = list(product(corruptions, severities))
    sources_of_class: Counter[int] = Counter()  # source images so far
    for item in items_of_layout(dataset, **settings):
        picture = _picture_at_geometry(item, dataset)
        pairs_of_source = all_pairs
        if once:
            turn = sources_of_class[item.label] % len(all_pairs)
            pairs_of_source = [all_pairs[turn]]
            sources_of_class[item.label] += 1
        for corruption, severity in pairs_of_source:
            yield replace(
                item,
                image_id=f"{corruption}/{severity}/{item.image_id}",
                picture=corrupt(picture, corruption, severity, item.source_id),
                slices={**item.slices, "corruption": corruption, "severity": severity},
                original=None,
            )


def _picture_at_geometry(item: Item, dataset: DatasetSource) -> np.ndarray:
    """(size, size, 3) uint8; only photos are resized, as drawings have this size already."""
    if not isinstance(item.picture, Photo):  # the layout has drawn it at this size
        return item.picture
    photo = item.picture
    image = decode(photo.read(), photo.name, photo.border)
    return resize_and_crop(image, dataset.drawing_geometry)


def _refuse_unknown(
    setting: str, chosen: list[Any], choices: list[Any], dataset: DatasetSource
) -> None:
    """A UserError if a choice does not exist or occurs twice."""
    for choice in chosen:
        if choice not in choices:
            raise UserError(
                f"{dataset}: there is no {setting} '{choice}'; choose from "
                f"{', '.join(map(str, choices))} in its settings."
            )
        if chosen.count(choice) > 1:
            raise UserError(
                f"{dataset}: the {setting} '{choice}' is stated twice in its settings; remove one."
            )
