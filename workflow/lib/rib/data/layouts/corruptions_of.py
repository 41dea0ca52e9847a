"""Corruptions of the images of any other layout, computed here."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from rib.base.errors import UserError
from rib.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from rib.data.images import DatasetSource, Item
from rib.data.layouts._photos import items_of_photos, picture_at_geometry


def items(
    dataset: DatasetSource,
    *,
    photos: dict[str, Any],
    corruptions: list[str],
    severities: list[int],
    once: bool = False,
    by_class: bool = True,
) -> Iterator[Item]:
    """Yield the images of another layout, corrupted; slices are corruption and severity.

    Images are corrupted after resizing, as in ImageNet-C. Random values depend only on the image's
    source and the corruption.

    Args:
        photos: the other layout: `{"layout": "idx", "settings": {"part": "t10k"}}`.
        corruptions: keys of `rib.data.corrupt.CORRUPTIONS`.
        severities: 1 to 5.
        once: whether each image is shown once, with all corruptions and severities in turn;
            otherwise with every corruption at every severity.
        by_class: with `once`, whether they are equally frequent in every class; otherwise, for
            classes of few images, among all images.

    Raises:
        UserError: a corruption or severity does not exist or occurs twice, an image can't be
            decoded, or the other layout fails.
    """
    _refuse_unknown("corruption", corruptions, list(CORRUPTIONS), dataset)
    _refuse_unknown("severity", severities, list(SEVERITIES), dataset)
    all_pairs = list(product(corruptions, severities))
    # Source images so far of each class or, under None, of all.
    sources_so_far: Counter[int | None] = Counter()
    for item in items_of_photos(dataset, photos):
        picture = picture_at_geometry(item, dataset)
        pairs_of_source = all_pairs
        if once:
            counted = item.label if by_class else None
            turn = sources_so_far[counted] % len(all_pairs)
            pairs_of_source = [all_pairs[turn]]
            sources_so_far[counted] += 1
        for corruption, severity in pairs_of_source:
            yield replace(
                item,
                image_id=f"{corruption}/{severity}/{item.image_id}",
                picture=corrupt(picture, corruption, severity, item.source_id),
                slices={**item.slices, "corruption": corruption, "severity": severity},
                original=None,
            )


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
