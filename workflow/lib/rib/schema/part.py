"""A part of a dataset that one job evaluates, without torch."""

from typing import Annotated

from pydantic import Strict

from rib.base.params import Settings

# Values in an index's column, such as ("fog", "snow").
Levels = Annotated[tuple[str | int, ...], Strict(False)]


class DatasetPart(Settings):
    """Images with some values in a column: `fog` and `snow` in ImageNet-C's `corruption`."""

    column: str  # of the dataset's index, such as `corruption`
    levels: Levels  # values in this column
