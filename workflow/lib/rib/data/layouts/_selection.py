"""Select images of a file by texts or numbers that the file states for each of them."""

from collections.abc import Mapping
from typing import Any

from rib.base.errors import UserError
from rib.data.images import DatasetSource
from rib.schema.fields import is_whole
from rib.schema.messages import show

SHOWN_LEVELS = 10  # values of a column in a message


class Selection:
    """The images that have one of the given values in every given column.

    Args:
        where: by column, or field of a JSON file, a value or list: `{"domain": ["sketch",
            "photo"]}`.
        dataset: for messages.

    Raises:
        UserError: a value in `where` is neither text nor an integer.
    """

    def __init__(self, where: Mapping[str, Any], dataset: DatasetSource):
        self._dataset = dataset
        self._levels_of_column: dict[str, list[str | int]] = {}
        for column, levels in where.items():
            if not isinstance(levels, list):
                levels = [levels]
            are_levels = all(isinstance(level, str) or is_whole(level) for level in levels)
            if not isinstance(column, str) or not levels or not are_levels:
                raise UserError(
                    f"{dataset}: where in its settings has {show(levels)} for "
                    f"{show(column)}; give a text, a whole number or a list of these."
                )
            self._levels_of_column[column] = levels
        self._first_levels: dict[str, list[str | int]] = {column: [] for column in where}
        self._has_selected = False

    @property
    def columns(self) -> list[str]:
        """The columns that decide."""
        return list(self._levels_of_column)

    def includes(self, facts: Mapping[str, str | int | None]) -> bool:
        """Whether an image with these values, such as `{"domain": "sketch"}`, is selected."""
        is_selected = True
        for column, levels in self._levels_of_column.items():
            level = facts[column]
            self._note_level(column, level)
            if level not in levels:
                is_selected = False
        self._has_selected = self._has_selected or is_selected
        return is_selected

    def _note_level(self, column: str, level: str | int | None) -> None:
        """Keep the first values of a column for the message that no image is selected."""
        first_levels = self._first_levels[column]
        if level is not None and len(first_levels) <= SHOWN_LEVELS and level not in first_levels:
            first_levels.append(level)

    def refuse_nothing(self) -> None:
        """Raise a UserError with the existing values if no image was selected."""
        if self._has_selected or not self._levels_of_column:
            return
        descriptions = []
        for column, first_levels in self._first_levels.items():
            shown_levels = ", ".join(map(show, first_levels[:SHOWN_LEVELS]))
            if len(first_levels) > SHOWN_LEVELS:
                shown_levels += ", ..."
            descriptions.append(f"{show(column)} has {shown_levels or 'no values'}")
        raise UserError(
            f"{self._dataset}: where in its settings selects no image ({'; '.join(descriptions)}); "
            "correct it."
        )
