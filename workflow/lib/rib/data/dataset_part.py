"""A part of a dataset that one job evaluates, and settings of its stage. No torch."""

from typing import Annotated

from pydantic import Strict

from rib.base.settings import Settings

Levels = Annotated[tuple[str | int, ...], Strict(False)]  # of a slice


class DatasetPart(Settings):
    """The images of a dataset with some levels of a slice; of ImageNet-C it is the corruption."""

    column: str  # of the dataset's index, with the slice
    levels: Levels  # of the part
