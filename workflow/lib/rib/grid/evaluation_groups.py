"""Evaluation groups: the datasets, or the part of a dataset, that one job evaluates. No torch."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rib.grid.grid import Grid
    from rib.schema.entries import Parts

# Stands before the part in a group's name; names of other groups don't contain it.
BEFORE_PART = "-"


def evaluation_groups(grid: Grid) -> dict[str, list[str]]:
    """Datasets of each evaluation group, in the catalogue's order.

    For example {"emoji": ["noto", "twemoji"], "imagenet_c-noise": ["imagenet_c"]}. If only some
    datasets of a group are evaluated, the group gets a different name, since its rows differ from
    the whole group's. A dataset that is evaluated in parts has one group per part.
    """
    groups: dict[str, list[str]] = {}
    for name in grid.datasets:
        for group in groups_of(grid, name):
            groups.setdefault(group, []).append(name)
    return groups


def groups_of(grid: Grid, dataset: str) -> list[str]:
    """Names of the evaluation groups of an evaluated dataset.

    There is one, unless the dataset is evaluated in parts: imagenet_c-noise, imagenet_c-blur and so
    on.
    """
    group = _group_of(grid, dataset)
    parts = grid.datasets[dataset].parts
    if parts is None:
        return [group]
    return [f"{group}{BEFORE_PART}{part}" for part in parts.levels]


def part_of_group(grid: Grid, group: str) -> dict[str, Any] | None:
    """The part of a dataset that a group evaluates; None for a group of whole datasets.

    For example {"column": "corruption", "levels": ("snow", "frost", "fog", "brightness")}: images
    with these values in the column of the dataset's index. They are fields of
    rib.schema.part.DatasetPart.

    Args:
        group: a key of `evaluation_groups`, such as imagenet_c-noise.
    """
    if BEFORE_PART not in group:
        return None
    parts = _parts_of_dataset(grid, group)
    return {"column": parts.column, "levels": parts.levels[_name_of_part(group)]}


def levels_of_other_parts(grid: Grid, group: str) -> list[str | int]:
    """Values of images in the dataset's other parts, in the order of the dataset's entry.

    A job that evaluates one part checks with them that each image is in a part. For
    imagenet_c-weather they are the corruptions of noise, blur and digital: ["gaussian_noise", ...].
    """
    other_levels: list[str | int] = []
    for name, levels in _parts_of_dataset(grid, group).levels.items():
        if name != _name_of_part(group):
            other_levels.extend(levels)
    return other_levels


def _parts_of_dataset(grid: Grid, group: str) -> Parts:
    """All parts of the dataset of a group, for example of imagenet_c for imagenet_c-noise."""
    (dataset,) = evaluation_groups(grid)[group]
    parts = grid.datasets[dataset].parts
    assert parts is not None  # else the group would have another name
    return parts


def _name_of_part(group: str) -> str:
    """`noise` for imagenet_c-noise."""
    _, _, name = group.partition(BEFORE_PART)
    return name


def _group_of(grid: Grid, dataset: str) -> str:
    """Name of a dataset's group, such as `emoji`, or `emoji_1a2b3c4d` with a digest.

    Rows of the group are reused by other runs, so the name has a digest unless exactly its default
    datasets are evaluated.
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
    """Eight hexadecimal digits that identify a JSON value."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
