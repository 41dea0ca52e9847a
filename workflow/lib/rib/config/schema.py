"""Names for rib.config.settings, until it reads settings from the catalogue's entries."""

import contextlib

from rib.config.yaml_files import read_source

__all__ = ["number", "read_source"]


def number(text: str) -> int | float | None:
    """Convert a text to a number; None if it is not a number."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return None
