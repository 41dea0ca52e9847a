"""Arguments of the Python API's functions, checked; a UserError says which one is wrong, and what to give."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rib.base.errors import UserError
from rib.config.values import is_whole, show


def text_argument(value: object, name: str, meaning: str) -> str:
    """A text that is not empty; `meaning` is what it is of, such as "a family"."""
    if not isinstance(value, str) or not value.strip():
        raise _wrong(value, name, f"the name of {meaning} as text")
    return value


def texts_argument(value: object, name: str, meaning: str) -> list[str]:
    """A text, or several, at least one, in any iterable but a mapping; `meaning` as above."""
    wanted = f"a list of names of {meaning}, or one name as text"
    if isinstance(value, str):
        return [text_argument(value, name, meaning)]
    if isinstance(value, Mapping | bytes) or not isinstance(value, Iterable):
        raise _wrong(value, name, wanted)
    texts = list(value)
    if not texts:
        raise UserError(f"'{name}' is empty; give {wanted}.")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"'{name}' contains {_shown(text)}; give {wanted}.")
    return texts


def whole_argument(value: object, name: str) -> int:
    """A whole number from 0."""
    if not is_whole(value) or value < 0:
        raise _wrong(value, name, "a whole number from 0")
    return value


def path_argument(value: object, name: str) -> Path:
    """A path as text or Path, absolute, with `~` and links resolved; nothing need be there."""
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise _wrong(value, name, "a path as text or pathlib.Path")
    try:
        return Path(value).expanduser().resolve()
    # An unknown home folder is a RuntimeError, a null character a ValueError.
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"'{name}' is no path ({error}); correct it.") from error


def _wrong(value: object, name: str, wanted: str) -> UserError:
    return UserError(f"'{name}' is {_shown(value)}; give {wanted}.")


def _shown(value: object) -> str:
    """A simple value as Python writes it; of others the type, since they may be long."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return " ".join(show(value).split())
    return f"a {type(value).__name__}"
