"""Key under which the cache of the Python API keeps a result.

It is a hash of all that the result is made with.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath

from rib.base.settings import Settings, to_params

DIGITS = 16  # of the hash, in hex


def cache_key(settings: object, cache: Path) -> str:
    """First 16 hex digits of the SHA-256 of settings, which differ if any of the settings do.

    Args:
        settings: all that a result is made with. These are None, booleans, numbers, texts, paths,
            settings of stages, and mappings (by text), sequences and dataclasses of these.
        cache: absolute path of the cache's folder. A path inside of it counts by where it is
            below the folder, so that a cache that was moved keeps its keys.

    Raises:
        TypeError: A setting is of another type, so that nothing tells whether two are equal.
    """
    text = json.dumps(_as_json(settings, cache), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _as_json(setting: object, cache: Path) -> object:
    """A setting as JSON has it; settings that are not equal, or of other types, differ in it.

    A mapping, and what JSON does not have, such as a path, is an object that has one key: the name
    of the type.
    """
    if setting is None or isinstance(setting, bool | int | float | str):
        return setting
    if isinstance(setting, PurePath):
        if setting.is_relative_to(cache):
            return {"path in the cache": setting.relative_to(cache).as_posix()}
        return {"path": setting.as_posix()}
    if isinstance(setting, Settings):
        return {type(setting).__qualname__: _as_json(to_params(setting), cache)}
    if is_dataclass(setting) and not isinstance(setting, type):
        attributes = {field.name: getattr(setting, field.name) for field in fields(setting)}
        return {type(setting).__qualname__: _as_json(attributes, cache)}
    if isinstance(setting, Mapping):
        for key in setting:
            if not isinstance(key, str):
                raise TypeError(
                    f"a setting is named {key!r}; a text is needed in a key of the cache"
                )
        return {"mapping": {key: _as_json(entry, cache) for key, entry in setting.items()}}
    if isinstance(setting, list | tuple):
        return [_as_json(element, cache) for element in setting]
    raise TypeError(
        f"{setting!r} is a {type(setting).__name__}, which can't be part of a key of the cache"
    )
