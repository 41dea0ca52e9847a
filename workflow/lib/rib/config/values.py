"""Values as people write them in config, catalogue and records: kinds of numbers, and how messages show them."""

import difflib
import sys
from collections.abc import Iterable

from rib.base.text import redacted

SHOWN = 100  # maximum length of an invalid value in a message


def is_whole(value: object) -> bool:
    """Whether a value is an integer: 1, but neither 1.0 nor True."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def show(value: object) -> str:
    """An invalid value as quoted in messages."""
    text = redacted(repr(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def nearest(name: object, known: Iterable[str]) -> str:
    """A clause with the most similar known name; empty if none is similar."""
    close = difflib.get_close_matches(str(name)[:SHOWN], list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
