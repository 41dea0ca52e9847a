"""A part of a dataset that one job evaluates, without torch."""

from typing import Annotated

from pydantic import Strict

from rib.base.settings import Settings

# Levels of a slice, such as ("fog", "snow").
Levels = Annotated[tuple[str | int, ...], Strict(False)]


class DatasetPart(Settings):
    """Images with some levels of a slice, such as one corruption of ImageNet-C."""

    column: str  # column of the slice in the dataset's index
    levels: Levels  # levels in the part
