"""Checks of the arguments of the Python API's functions.

A UserError says which argument is wrong, and what to give instead.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rib.base.errors import UserError
from rib.config.values import is_whole, show


def text_argument(argument: object, name: str, meaning: str) -> str:
    """An argument that must be a text that is not empty; a UserError if it is not.

    Args:
        argument: what the caller gave.
        name: name of the parameter.
        meaning: what the text names, such as "a family".
    """
    if not isinstance(argument, str) or not argument.strip():
        raise _wrong_argument(argument, name, f"the name of {meaning} as text")
    return argument


def texts_argument(argument: object, name: str, meaning: str) -> list[str]:
    """An argument that must be one text or several, at least one, as a list of texts.

    Args:
        argument: what the caller gave: a text, or texts in any iterable but a mapping.
        name: name of the parameter.
        meaning: what the texts name, such as "methods".

    Raises:
        UserError: It is something else, or a text is empty.
    """
    expected = f"a list of names of {meaning}, or one name as text"
    if isinstance(argument, str):
        return [text_argument(argument, name, meaning)]
    if isinstance(argument, Mapping | bytes) or not isinstance(argument, Iterable):
        raise _wrong_argument(argument, name, expected)
    texts = list(argument)
    if not texts:
        raise UserError(f"'{name}' is empty; give {expected}.")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"'{name}' contains {_shown(text)}; give {expected}.")
    return texts


def whole_argument(argument: object, name: str) -> int:
    """An argument that must be a whole number from 0; a UserError if it is not."""
    if not is_whole(argument) or argument < 0:
        raise _wrong_argument(argument, name, "a whole number from 0")
    return argument


def path_argument(argument: object, name: str) -> Path:
    """An argument that is a path, made absolute, with `~` and links resolved; it need not exist.

    Raises:
        UserError: The argument is neither text nor a Path, is blank, or can't be a path.
    """
    if not isinstance(argument, str | os.PathLike) or not str(argument).strip():
        raise _wrong_argument(argument, name, "a path as text or pathlib.Path")
    try:
        return Path(argument).expanduser().resolve()
    # An unknown home folder is a RuntimeError, a null character a ValueError.
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"'{name}' is no path ({error}); correct it.") from error


def _wrong_argument(argument: object, name: str, expected: str) -> UserError:
    return UserError(f"'{name}' is {_shown(argument)}; give {expected}.")


def _shown(argument: object) -> str:
    """A simple argument as Python writes it; of others the type, since they may be long."""
    if argument is None or isinstance(argument, bool | int | float | str | bytes):
        return " ".join(show(argument).split())
    return f"a {type(argument).__name__}"
