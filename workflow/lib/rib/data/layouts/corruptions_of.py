"""Corruptions of the photos or drawings of any other layout, made here."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from rib.base.errors import UserError
from rib.base.plugins import checked_settings, load_function
from rib.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from rib.data.images import DatasetSource, Item, Photo, decode, resize_and_crop


def items(
    dataset: DatasetSource,
    *,
    photos: dict[str, Any],
    corruptions: list[str],
    severities: list[int],
    once: bool = False,
) -> Iterator[Item]:
    """Yield the photos of another layout, corrupted; accuracies can be split by corruption.

    They are corrupted after they are resized, as those of ImageNet-C are. What is random depends on
    the photo's source and the corruption alone.

    Args:
        photos: `layout`, the name of the other layout, and its `settings`.
        corruptions: keys of `rib.data.corruptions.CORRUPTIONS`.
        severities: numbers, 1 to 5.
        once: whether each photo is shown once, in the next corruption and severity in turn, so
            that each is equally frequent in every class; otherwise each photo is shown with every
            corruption at every severity.

    Raises:
        UserError: a corruption or severity does not exist or is stated twice, a photo can't be
            decoded, or see the other layout.
    """
    _refuse_unknown("corruption", corruptions, list(CORRUPTIONS), dataset)
    _refuse_unknown("severity", severities, list(SEVERITIES), dataset)
    assert dataset.photos_layout is not None  # the catalogue has the file of `photos`
    items_of_layout = load_function(dataset.photos_layout, "items")
    settings = checked_settings(
        items_of_layout,
        photos.get("settings", {}),
        dataset.photos_layout,
        f"datasets.yaml, {dataset}, photos",
    )
    all_pairs = list(product(corruptions, severities))
    photos_of_class: Counter[int] = Counter()  # so far
    for item in items_of_layout(dataset, **settings):
        picture = _picture_at_geometry(item, dataset)
        pairs_of_photo = all_pairs
        if once:
            turn = photos_of_class[item.label] % len(all_pairs)
            pairs_of_photo = [all_pairs[turn]]
            photos_of_class[item.label] += 1
        for corruption, severity in pairs_of_photo:
            yield replace(
                item,
                image_id=f"{corruption}/{severity}/{item.image_id}",
                picture=corrupt(picture, corruption, severity, item.source_id),
                slices={**item.slices, "corruption": corruption, "severity": severity},
                original=None,
            )


def _picture_at_geometry(item: Item, dataset: DatasetSource) -> np.ndarray:
    """The picture of an item, (size, size, 3) uint8; a photo is decoded and resized."""
    if not isinstance(item.picture, Photo):  # the layout has drawn it at this size
        return item.picture
    photo = item.picture
    image = decode(photo.read(), photo.name, photo.border)
    return resize_and_crop(image, dataset.drawing_geometry)


def _refuse_unknown(
    setting: str, chosen: list[Any], choices: list[Any], dataset: DatasetSource
) -> None:
    """Refuse a corruption or severity that does not exist, or is chosen twice.

    Args:
        setting: `corruption` or `severity`, for messages.
        chosen: what the dataset's settings list.
        choices: what exists.
    """
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
