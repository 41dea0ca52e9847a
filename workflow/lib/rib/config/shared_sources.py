"""Datasets of a grid that share source images, and what follows for RI and splits. No torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rib.config.grid import Grid


def source_groups(grid: Grid) -> dict[str, str]:
    """Source group by dataset, for datasets that share source images with others."""
    return {name: entry.source_group for name, entry in grid.datasets.items() if entry.source_group}


def sharing_targets(grid: Grid) -> list[str]:
    """Targets whose source images other evaluated datasets show too, by their entries."""
    groups = source_groups(grid)
    datasets_by_group = Counter(groups.values())
    return [
        target
        for target in grid.targets
        if target in groups and datasets_by_group[groups[target]] > 1
    ]


def leak_free_groups(grid: Grid) -> dict[str, str] | None:
    """Source group by dataset, if images that share sources with the target don't count in RI.

    None if all count: config doesn't ask for less or, under protocol held_out, test images
    share no sources with training images anyway.
    """
    if grid.config["leak_free"] and grid.split_fractions is None:
        return source_groups(grid)
    return None


def leaking_groups(grid: Grid) -> dict[str, str] | None:
    """Source group by dataset, if images that share sources with the target count in RI.

    None if they don't count, or if no target shares its sources.
    """
    is_leak_free = grid.config["leak_free"] or grid.split_fractions is not None
    if is_leak_free or not sharing_targets(grid):
        return None
    return source_groups(grid)


def evaluated_before(grid: Grid, dataset: str) -> list[str]:
    """Evaluated datasets that are split into train, select and test before this one.

    They are those before it in the catalogue. A reference dataset is split after all of them.
    """
    return _names_before(dataset, list(grid.datasets))


def split_before(grid: Grid, dataset: str) -> list[str]:
    """Those of `evaluated_before` that share source images with this dataset, by their entries.

    A source image is then in the same split in all of them.
    """
    source_group = grid.catalog.datasets[dataset].source_group
    if source_group is None:
        return []
    related = [name for name, entry in grid.datasets.items() if entry.source_group == source_group]
    return _names_before(dataset, related)


def _names_before(name: str, names: list[str]) -> list[str]:
    """The names in a list before one of them; all of them if that is not in the list."""
    if name not in names:
        return names
    return names[: names.index(name)]
