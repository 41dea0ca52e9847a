"""Keys of the Python API's cache: other settings are other keys, wherever the cache lies."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from rib.jobs.cache_key import cache_key

CACHE = Path("/somewhere/cache")


@dataclass(frozen=True)
class Settings:
    rate: float


@dataclass(frozen=True)
class OtherSettings:
    rate: float


DIFFERENT = [
    None,
    True,
    1,
    1.0,
    1.5,
    15,
    "1",
    "1.5",
    "15",
    "105",
    "",
    [],
    {},
    [1, 5],
    [15],
    {"rate": 1.5},
    {"rate": 15},
    Settings(1.5),
    Settings(15.0),
    OtherSettings(1.5),
    {"Settings": {"rate": 1.5}},
    Path("/data/a.b"),
    Path("/data/ab"),
    "/data/a.b",
    {"path": "/data/a.b"},
    CACHE / "raw/red",
    Path("raw/red"),
    Path("/raw/red"),
    {"path in the cache": "raw/red"},
    str(CACHE / "raw/red"),
]


@pytest.mark.parametrize(
    "cache", [CACHE, Path("/"), Path("/0"), Path("/1"), Path("/5"), Path("/.")], ids=str
)
def test_other_settings_have_other_keys(cache):
    keys = [cache_key({"setting": value}, cache) for value in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)


def test_equal_settings_have_equal_keys():
    settings = {"a": (1, 2), "b": {"c": 1, "d": Settings(1.5)}}
    in_another_order = MappingProxyType({"b": {"d": Settings(1.5), "c": 1}, "a": [1, 2]})
    assert cache_key(settings, CACHE) == cache_key(in_another_order, CACHE)


def test_a_moved_cache_keeps_its_keys():
    made_with = [
        {"folder": folder / "models/a", "data": "/data/red.zip"}
        for folder in (CACHE, Path("/moved"))
    ]
    assert cache_key(made_with[0], CACHE) == cache_key(made_with[1], Path("/moved"))
    assert cache_key(made_with[0], CACHE) != cache_key(made_with[1], CACHE)


@pytest.mark.parametrize(
    "value",
    [object(), b"1", {1: "one"}, {1, 2}, print, Settings],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_compared_is_refused(value):
    with pytest.raises(TypeError):
        cache_key([value], CACHE)
