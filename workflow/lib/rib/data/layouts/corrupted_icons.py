"""Iconify icon sets whose drawings are corrupted here.

Each has every corruption at every severity.
"""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import product

import numpy as np

from rib.base.errors import UserError
from rib.data.images import DatasetSource, Item
from rib.data.layouts import iconify
from rib.data.layouts._corruptions import STRENGTHS, corrupt

SEVERITIES = [1, 2, 3, 4, 5]


def items(
    dataset: DatasetSource, *, margin: float, corruptions: list[str], severities: list[int]
) -> Iterator[Item]:
    """Yield the drawings of `iconify.items` with corruption and severity as slices.

    Noise depends on the image id alone.

    Raises:
        UserError: a corruption is not in `STRENGTHS`, a severity not from 1 to 5, or see
            `iconify.items`.
    """
    choices = [*STRENGTHS, *SEVERITIES]
    for choice in [*corruptions, *severities]:
        if choice not in choices:
            raise UserError(
                f"{dataset}: corruptions and severities have '{choice}'; choose from {choices}."
            )
    for drawing in iconify.items(dataset, margin=margin):
        assert isinstance(drawing.picture, np.ndarray)  # not a photo
        for corruption, severity in product(corruptions, severities):
            image_id = f"{corruption}/{severity}/{drawing.image_id}"
            random = np.random.default_rng(list(sha256(image_id.encode()).digest()))
            yield replace(
                drawing,
                image_id=image_id,
                picture=corrupt(drawing.picture, corruption, severity, random),
                slices={"corruption": corruption, "severity": severity},
            )
