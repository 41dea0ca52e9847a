"""Conditions of all results of a grid, as short phrases. No pandas: rules import this module."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from rib.grid.leaks import leak_free_groups

if TYPE_CHECKING:
    from rib.grid.grid import Grid


def conditions_of(grid: Grid) -> list[str]:
    """Conditions of all results that no table column states, for readers of tables and page.

    An example is ["protocol paper", "leak-free", "without IN-C"].
    """
    phrases = [f"protocol {grid.config['protocol']}"]
    if leak_free_groups(grid) is not None:
        phrases.append("leak-free")
    labels = {entry.name: entry.label for entry in grid.datasets_read()}
    budget = grid.budget.phrase(labels)
    if budget is not None:
        phrases.append(f"{budget} (intervals are of these images)")
    phrases.extend(_phrases_on_subsets(grid))
    labels_without_proxy = []
    for name, entry in grid.datasets.items():
        if grid.excludes_proxy(name):
            labels_without_proxy.append(entry.label)
    if labels_without_proxy:
        assert grid.reference is not None
        phrases.append(
            f"pretraining proxy: {grid.reference.images_per_class} images per class of "
            f"{grid.reference.dataset.label}, excluded from {', '.join(labels_without_proxy)}"
        )
    labels_of_uncropped = [
        entry.label for name, entry in grid.datasets.items() if name in grid.uncropped
    ]
    if labels_of_uncropped:
        phrases.append(f"whole images of {', '.join(labels_of_uncropped)}")
    labels_left_out = []
    for entry in grid.catalog.evaluated_datasets(grid.family).values():
        if not entry.optional and entry.name not in grid.datasets:
            labels_left_out.append(entry.label)
    if labels_left_out:
        phrases.append(f"without {', '.join(labels_left_out)}")
    labels_of_optional = []
    for name in grid.ood:
        if grid.datasets[name].optional:
            labels_of_optional.append(grid.datasets[name].label)
    if labels_of_optional:
        phrases.append(f"RI with {', '.join(labels_of_optional)}")
    return phrases


def _phrases_on_subsets(grid: Grid) -> list[str]:
    """["size 1000 of IN-C is trained for the steps of IN-Sketch (796 per epoch)"]."""
    # A subset of a target that is larger than the family's ceiling, a dataset, is trained for the
    # steps of the ceiling.
    phrases = []
    for size, target in itertools.product(grid.sizes, grid.all_targets):
        trainings = grid.shortened_trainings(target, size)
        if not trainings:
            continue
        phrase = f"size {size} of {grid.catalog.datasets[target].label} is trained for"
        if trainings[0]["steps"] is None:
            phrases.append(f"{phrase} as many epochs as the whole")
            continue
        assert grid.family.subset_ceiling is not None and grid.images_of_ceiling is not None
        ceiling = grid.catalog.datasets[grid.family.subset_ceiling].label
        steps = math.ceil(grid.images_of_ceiling / trainings[0]["batch_size"])
        phrases.append(f"{phrase} the steps of {ceiling} ({steps} per epoch)")
    return phrases
