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
    """Description of what to set instead of a setting that its annotation does not allow.

    Args:
        annotation: name of a range, or a Literal with its choices; all others allow everything.
        setting: a number, or for a Literal anything.

    Returns:
        The range or the choices in words; None if the setting is allowed.
    """
    name, _, choices = annotation.partition("[")
    if name == "Literal":
        allowed = ast.literal_eval(f"[{choices}")
        if setting in allowed:
            return None
        return " or ".join(map(repr, allowed))
    if name in RANGES and not RANGES[name].contains(setting):
        return RANGES[name].description
    return None
