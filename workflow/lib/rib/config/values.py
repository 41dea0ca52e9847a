"""Which values of records, files, settings and arguments of networks are numbers."""

import sys
from typing import TypeGuard


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer: 1, but neither 1.0 nor True."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN, too
