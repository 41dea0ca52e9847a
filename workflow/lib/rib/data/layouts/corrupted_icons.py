"""Iconify icon sets whose drawings are corrupted here, each with every corruption at every severity."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import product

import numpy as np

from rib.base.errors import UserError
from rib.data.images import DatasetSource, Item
from rib.data.layouts import iconify
from rib.data.layouts._corruptions import STRENGTHS, corrupt


def items(
    dataset: DatasetSource, *, margin: float, corruptions: list[str], severities: list[int]
) -> Iterator[Item]:
    """Yield the drawings of `iconify.items` with corruption and severity as slices; noise depends on the image id alone.

    Raises:
        UserError: a corruption is not in `STRENGTHS`, a severity not from 1 to 5, or see `iconify.items`.
    """
    known = [*STRENGTHS, 1, 2, 3, 4, 5]
    if unknown := [value for value in [*corruptions, *severities] if value not in known]:
        raise UserError(
            f"{dataset}: corruptions and severities have '{unknown[0]}'; choose from {known}."
        )
    for drawing in iconify.items(dataset, margin=margin):
        for corruption, severity in product(corruptions, severities):
            image_id = f"{corruption}/{severity}/{drawing.image_id}"
            random = np.random.default_rng(list(sha256(image_id.encode()).digest()))
            slices = {"corruption": corruption, "severity": severity}
            picture = corrupt(drawing.picture, **slices, random=random)
            yield replace(drawing, image_id=image_id, picture=picture, slices=slices)
