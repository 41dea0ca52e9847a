"""Key under which the cache of the Python API keeps a result.

It is a hash of all that the result is made with.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath

DIGITS = 16  # of the hash, in hex


def cache_key(made_with: object, cache: Path) -> str:
    """First 16 hex digits of the SHA-256 of settings, which differ if any of the settings do.

    Args:
        made_with: None, booleans, numbers, texts, paths, and mappings (by text), sequences and
            dataclasses of these.
        cache: absolute path of the cache's folder. A path inside of it counts by where it is
            below the folder, so that a cache that was moved keeps its keys.

    Raises:
        TypeError: a value is of another type, so that nothing tells whether two are equal.
    """
    text = json.dumps(_plain(made_with, cache), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _plain(value: object, cache: Path) -> object:
    """A value as JSON; values that are not equal, or of other types, are different JSON.

    What JSON lacks is an object with the type's name as its only key, and mappings are, too.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        if value.is_relative_to(cache):
            return {"path in the cache": value.relative_to(cache).as_posix()}
        return {"path": value.as_posix()}
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: getattr(value, field.name) for field in fields(value)}
        return {type(value).__qualname__: _plain(content, cache)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"a setting is named {key!r}; a text is needed in a key of the cache"
                )
        return {"mapping": {key: _plain(item, cache) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [_plain(item, cache) for item in value]
    raise TypeError(
        f"{value!r} is a {type(value).__name__}, which can't be part of a key of the cache"
    )
