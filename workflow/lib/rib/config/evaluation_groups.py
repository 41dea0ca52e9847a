"""Evaluation groups: the datasets, or the part of one, that one job evaluates. No torch."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rib.config.entries import Parts
    from rib.config.grid import Grid

# In names of evaluation groups, before the part of a dataset; no other name of a group has it.
BEFORE_PART = "-"


def evaluation_groups(grid: Grid) -> dict[str, list[str]]:
    """Datasets of each evaluation group, which one job evaluates, in the catalogue's order.

    A group of which only some datasets are evaluated has a name of its own, since its rows are
    others than the whole group's. A dataset that is evaluated in parts has a group for each.
    """
    groups: dict[str, list[str]] = {}
    for name in grid.datasets:
        for group in groups_of(grid, name):
            groups.setdefault(group, []).append(name)
    return groups


def groups_of(grid: Grid, dataset: str) -> list[str]:
    """Names of the evaluation groups of an evaluated dataset (see `evaluation_groups`).

    It is one, unless the dataset is evaluated in parts: those of imagenet_c are called
    imagenet_c-noise, imagenet_c-blur and so on.
    """
    group = _group_of(grid, dataset)
    parts = grid.datasets[dataset].parts
    if parts is None:
        return [group]
    return [f"{group}{BEFORE_PART}{part}" for part in parts.levels]


def part_of_group(grid: Grid, group: str) -> dict[str, Any] | None:
    """Fields of rib.data.dataset_part.DatasetPart, the part of a dataset that a group is.

    Args:
        group: one of `evaluation_groups`, such as imagenet_c-noise. Of one that is whole
            datasets, such as imagenet, the part is None.
    """
    if BEFORE_PART not in group:
        return None
    parts = _parts_of_dataset(grid, group)
    return {"column": parts.column, "levels": parts.levels[_name_of_part(group)]}


def levels_of_other_parts(grid: Grid, group: str) -> list[str | int]:
    """Levels of the slice that are in the other parts of the dataset of which a group is one.

    They are in the order of the dataset's entry.
    """
    other_levels: list[str | int] = []
    for name, levels in _parts_of_dataset(grid, group).levels.items():
        if name != _name_of_part(group):
            other_levels.extend(levels)
    return other_levels


def _parts_of_dataset(grid: Grid, group: str) -> Parts:
    """All parts of the dataset of which an evaluation group is one."""
    (dataset,) = evaluation_groups(grid)[group]
    parts = grid.datasets[dataset].parts
    assert parts is not None  # otherwise its group would not have this name
    return parts


def _name_of_part(group: str) -> str:
    """Name of the part of a dataset that an evaluation group is: `noise` of imagenet_c-noise."""
    _, _, name = group.partition(BEFORE_PART)
    return name


def _group_of(grid: Grid, dataset: str) -> str:
    """Name of the evaluation group of an evaluated dataset, without that of a part.

    It is the name in the catalogue if those datasets of the group are evaluated that are by
    default; otherwise a digest of the evaluated ones is added.
    """
    group = grid.datasets[dataset].evaluation_group
    in_group = []
    not_optional = []
    for name, entry in grid.catalog.evaluated_datasets(grid.family).items():
        if entry.evaluation_group == group:
            in_group.append(name)
            if not entry.optional:
                not_optional.append(name)
    evaluated = [name for name in in_group if name in grid.datasets]
    evaluated_by_default = not_optional if not_optional else in_group
    if evaluated == evaluated_by_default:
        return group
    return f"{group}_{_short_digest(evaluated)}"


def _short_digest(content: object) -> str:
    """The first 8 hexadecimal digits of the SHA-256 of content as JSON, keys sorted."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
