"""Annotations that state a range of a setting, by name; those of methods are in rib.methods."""

import ast

RANGES = {
    "Share": ("a number above 0 and at most 1", lambda value: 0 < value <= 1),
    "Positive": ("a number above 0", lambda value: value > 0),
    "NonNegative": ("a number of at least 0", lambda value: value >= 0),
    "BelowOne": ("a number of at least 0 and below 1", lambda value: 0 <= value < 1),
    "UpToOne": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "Count": ("a whole number from 1", lambda value: isinstance(value, int) and value >= 1),
}


def misfit(annotation: str, value: object) -> str | None:
    """What to set instead of a value that is not in the range, or not of the choices of a Literal; None if it is."""
    name, _, choices = annotation.partition("[")
    if name == "Literal":
        known = ast.literal_eval(f"[{choices}")
        return None if value in known else " or ".join(map(repr, known))
    expected, fits = RANGES.get(name, ("", lambda _: True))
    return None if fits(value) else expected
