"""Which images of a file are a dataset's, by what the file states of each as text or number."""

from collections.abc import Mapping
from typing import Any

from rib.base.errors import UserError
from rib.config.fields import is_whole
from rib.config.messages import show
from rib.data.images import DatasetSource

SHOWN_LEVELS = 10  # of a column by which images are selected, in a message


class Selection:
    """The images that are read: in each of some columns they have one of some values.

    Args:
        where: by column, or field of a JSON file, a value or a list of values.
        dataset: for messages.

    Raises:
        UserError: `where` has something else in place of a text or whole number.
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
        """The columns of which an image's values are looked at."""
        return list(self._levels_of_column)

    def includes(self, facts: Mapping[str, str | int | None]) -> bool:
        """Whether an image is selected, by its values in `columns`; None stands for no value."""
        is_selected = True
        for column, levels in self._levels_of_column.items():
            level = facts[column]
            self._note_level(column, level)
            if level not in levels:
                is_selected = False
        self._has_selected = self._has_selected or is_selected
        return is_selected

    def _note_level(self, column: str, level: str | int | None) -> None:
        """Keep the first values of a column, for the message that no image has the right one."""
        first_levels = self._first_levels[column]
        if level is not None and len(first_levels) <= SHOWN_LEVELS and level not in first_levels:
            first_levels.append(level)

    def refuse_nothing(self) -> None:
        """Raise a UserError that names the values that exist, if no image was selected."""
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
