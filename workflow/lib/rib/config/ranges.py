"""Annotations that state a range of a setting, by name; those of methods are in rib.methods."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NumberRange:
    """The numbers that a setting may have."""

    description: str  # for messages
    contains: Callable[[float], bool]


def _is_share(number: float) -> bool:
    return 0 < number <= 1


def _is_positive(number: float) -> bool:
    return number > 0


def _is_not_negative(number: float) -> bool:
    return number >= 0


def _is_below_one(number: float) -> bool:
    return 0 <= number < 1


def _is_up_to_one(number: float) -> bool:
    return 0 <= number <= 1


def _is_count(number: float) -> bool:
    return isinstance(number, int) and number >= 1


RANGES = {
    "Share": NumberRange("a number above 0 and at most 1", _is_share),
    "Positive": NumberRange("a number above 0", _is_positive),
    "NonNegative": NumberRange("a number of at least 0", _is_not_negative),
    "BelowOne": NumberRange("a number of at least 0 and below 1", _is_below_one),
    "UpToOne": NumberRange("a number from 0 to 1", _is_up_to_one),
    "Count": NumberRange("a whole number from 1", _is_count),
}


def misfit(annotation: str, setting: Any) -> str | None:
    """What may be set, in words, if the annotation of a setting does not allow its value.

    Args:
        annotation: text such as `Positive`, the name of a range, or `Literal["all", "class"]`; any
            other annotation allows everything.
        setting: the value, which for a range is a number.

    Returns:
        The range or the choices; None if the setting is allowed.
    """
    if annotation.startswith("Literal["):
        choices = ast.literal_eval(annotation.removeprefix("Literal"))
        if setting in choices:
            return None
        return " or ".join(map(repr, choices))
    if annotation in RANGES and not RANGES[annotation].contains(setting):
        return RANGES[annotation].description
    return None
