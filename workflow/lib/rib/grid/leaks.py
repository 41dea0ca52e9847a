"""Datasets of a grid that share source images, with consequences for RI and splits. No torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rib.grid.grid import Grid


def source_groups(grid: Grid) -> dict[str, str]:
    """Source group by dataset, only for datasets that share source images with others.

    For example {"fluent_flat": "fluent", "fluent_3d": "fluent"}.
    """
    return {name: entry.source_group for name, entry in grid.datasets.items() if entry.source_group}


def sharing_targets(grid: Grid) -> list[str]:
    """Targets whose source images also occur in other evaluated datasets, which may bias RI."""
    groups = source_groups(grid)
    datasets_by_group = Counter(groups.values())
    return [
        target
        for target in grid.targets
        if target in groups and datasets_by_group[groups[target]] > 1
    ]


def leak_free_groups(grid: Grid) -> dict[str, str] | None:
    """Source group by dataset, if RI excludes images that share sources with the target.

    None if all images count: config doesn't exclude any or, under protocol held_out, test images
    share no sources with training images anyway.
    """
    if grid.config["leak_free"] and grid.split_fractions is None:
        return source_groups(grid)
    return None


def leaking_groups(grid: Grid) -> dict[str, str] | None:
    """Source group by dataset, if RI includes images that share sources with the target.

    None if RI excludes them, or if no target shares its sources.
    """
    is_leak_free = grid.config["leak_free"] or grid.split_fractions is not None
    if is_leak_free or not sharing_targets(grid):
        return None
    return source_groups(grid)


def evaluated_before(grid: Grid, dataset: str) -> list[str]:
    """Evaluated datasets that are split into train, select and test before this one.

    Images that they share with this one keep their split. They come earlier in the catalogue. A
    reference dataset is split after all of them.
    """
    return _names_before(dataset, list(grid.datasets))


def split_before(grid: Grid, dataset: str) -> list[str]:
    """Datasets of `evaluated_before` that share source images with this one.

    Each source image then gets the same split in all of them.
    """
    source_group = grid.catalog.datasets[dataset].source_group
    if source_group is None:
        return []
    related = [name for name, entry in grid.datasets.items() if entry.source_group == source_group]
    return _names_before(dataset, related)


def _names_before(name: str, names: list[str]) -> list[str]:
    """Names that come before `name` in the list; all if it is not in there."""
    if name not in names:
        return names
    return names[: names.index(name)]
