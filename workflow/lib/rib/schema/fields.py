"""Base class and types of fields of config.yaml and of the catalogue's entries."""

import contextlib
import math
import re
import sys
from typing import Annotated, Any, ClassVar, Literal, TypeGuard, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rib.base.params import Settings
from rib.base.text import WHY, presentable
from rib.schema.messages import VERY_SIMILAR, most_similar, show, suggestion

UNKNOWN_KEY = "unknown_key"  # type of an error of pydantic
EMPTY = "empty"  # same: a key without a value
KEYS = "keys"  # same: too many or too few of some keys
OF_FILE = {"of_file": True}  # pydantic's context if a file is checked
T = TypeVar("T")
DescribedT = TypeVar("DescribedT", bound="Described")


class Described(Settings):
    """Keys of a YAML file. Each has a description, which messages and docs show."""

    # Fields that the code sets and a file must not state.
    DERIVED: ClassVar[frozenset[str]] = frozenset()
    # Keys that a file may set to null; any other key it must leave out instead.
    NULLABLE: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _refuse_wrong_keys(cls, keys: Any, info: ValidationInfo) -> Any:
        """The keys unchanged; raises an error for an unknown key or one without a value."""
        if isinstance(keys, dict):
            for key, value in keys.items():
                if key not in cls.model_fields:
                    raise cls.unknown_key(key)
                if value is None and info.context == OF_FILE and key not in cls.NULLABLE:
                    raise PydanticCustomError(EMPTY, "it is empty", {"key": key})
        return keys

    @classmethod
    def _keys(cls) -> list[str]:
        """Keys that a file may state."""
        return [name for name in cls.model_fields if name not in cls.DERIVED]

    @classmethod
    def unknown_key(cls, key: object) -> PydanticCustomError:
        """The error for a key that a file must not state."""
        allowed = cls._keys()
        return PydanticCustomError(
            UNKNOWN_KEY,
            "{key}",
            {
                "key": show(key),
                "nearest": suggestion(cls._meant(key)),
                "allowed": ", ".join(sorted(allowed)) or "none",
            },
        )

    @classmethod
    def _meant(cls, key: object) -> str | None:
        """The most similar key, also in a mapping: for epoch `training: {epochs: ...}`."""
        own_keys = cls._keys()
        similar_key = most_similar(key, own_keys, VERY_SIMILAR)
        if similar_key is not None:
            return similar_key
        mapping_of_key: dict[str, str] = {}
        for name in own_keys:
            kind = cls.model_fields[name].annotation
            if isinstance(kind, type) and issubclass(kind, Described):
                for inner_key in kind._keys():
                    mapping_of_key.setdefault(inner_key, name)
        similar_key = most_similar(key, [*own_keys, *mapping_of_key])
        if similar_key is None or similar_key in own_keys:
            return similar_key
        return f"{mapping_of_key[similar_key]}: {{{similar_key}: ...}}"


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer: 1, but neither 1.0 nor True."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN, too


def number(text: object) -> object:
    """The number in a text, such as 0.00001 for "1e-5"; anything else unchanged.

    YAML reads 1e-5 as a text, and `--config seeds='[0,1]'` gives the texts 0 and 1.
    """
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            return int(text)
        with contextlib.suppress(ValueError):
            return float(text)
    return text


def _boolean(text: object) -> object:
    """True for the text "true", False for "false"; anything else unchanged."""
    booleans = {"true": True, "false": False}
    return booleans.get(text.lower(), text) if isinstance(text, str) else text


def _finite(value: float) -> float:
    """The number unchanged; a ValueError for infinity and NaN."""
    try:
        if math.isfinite(value):
            return value
    except OverflowError:  # an integer too large for a float
        pass
    raise ValueError("it is not a finite number")


def _label(text: str) -> str:
    """The text unchanged; a ValueError if it can't be shown in one line."""
    if not presentable(text):
        raise ValueError(WHY)
    return text


def _prose(text: str) -> str:
    """The text unchanged; a ValueError if it can't be shown."""
    _label(" ".join(text.split()))
    return text


def _without_repetition(values: list[T]) -> list[T]:
    """The list unchanged; a ValueError if it has a value twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"it has {show(value)} {values.count(value)} times")
    return values


def matching(pattern: str, longest: int | None = None) -> AfterValidator:
    """A validator that refuses texts unlike the pattern, or longer than `longest` characters."""

    def matched(text: str) -> str:
        if longest is not None and len(text) > longest:
            raise ValueError(f"it has more than {longest} characters")
        if not re.fullmatch(pattern, text):
            raise ValueError(f"it does not match {pattern}")
        return text

    return AfterValidator(matched)


AsNumber = BeforeValidator(number)
Whole = Annotated[int, AsNumber]
Number = Annotated[int | float, AfterValidator(_finite), AsNumber]  # an integer stays one
Flag = Annotated[bool, BeforeValidator(_boolean)]
Label = Annotated[str, AfterValidator(_label)]  # a text of one line that can be shown
Prose = Annotated[str, AfterValidator(_prose)]  # same, of several lines

Count = Annotated[Whole, Field(ge=1)]
FromZero = Annotated[Whole, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
UpToOne = Annotated[Number, Field(ge=0, le=1)]
Share = Annotated[Number, Field(gt=0, le=1)]
Fraction = Annotated[Number, Field(gt=0, lt=1)]
SizeOfSubset = Literal["all"] | Count | Annotated[Number, Field(ge=0.0001, lt=1)]
Side = Annotated[Whole, Field(ge=32, le=1024)]  # of the square input, in pixels
Seed = Annotated[Whole, Field(ge=0, le=2**64 - 1)]

Strings = Annotated[tuple[str, ...], Strict(False)]
Unique = Annotated[list[T], AfterValidator(_without_repetition)]

FileName = Annotated[str, matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", 150)]
LocalPath = Annotated[str, matching(r"(?!\w+://)[^\0]+")]
Url = Annotated[str, matching(r"https?://(?![^/?#]*@)[!-~]+")]
REPOSITORY = r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*"  # of the hub
REVISION = r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"


def exactly_one(entry: DescribedT, *keys: str) -> DescribedT:
    """The entry if it states exactly one of the keys; raises a PydanticCustomError otherwise."""
    given = [key for key in keys if getattr(entry, key) is not None]
    if len(given) != 1:
        raise PydanticCustomError(KEYS, f"give exactly one of the keys {', '.join(keys)}")
    return entry


def at_least_one(entry: DescribedT, *keys: str) -> DescribedT:
    """The entry if it states any of the keys; raises a PydanticCustomError otherwise."""
    if all(getattr(entry, key) is None for key in keys):
        raise PydanticCustomError(KEYS, f"give at least one of the keys {', '.join(keys)}")
    return entry


def stated(entry: Described) -> dict[str, Any]:
    """Keys of an entry as JSON values, without keys that it lacks: {"epochs": 10, "lr": 0.1}."""
    return entry.model_dump(mode="json", exclude_none=True)
