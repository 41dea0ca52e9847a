"""Copies of objects with other values, for settings of stages as for dataclasses."""

import dataclasses

from rib.base.params import Settings, replaced


def replace(original, **changes):
    """A copy with some fields changed, all of which are checked if they are settings."""
    if isinstance(original, Settings):
        return replaced(original, **changes)
    return dataclasses.replace(original, **changes)
