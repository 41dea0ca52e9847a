"""Reasons why a measured accuracy can't be compared with the published one. No torch, no pandas.

They are known before anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.schema.budget import images_within
from rib.schema.run import ALL

if TYPE_CHECKING:
    from rib.grid.grid import Grid


def obstacle_to_comparison(grid: Grid, model: str, dataset: str) -> str | None:
    """Why an accuracy cannot be compared with the published one; None if it can.

    Args:
        grid: in which the accuracy is measured.
        model: name of the pretrained model.
        dataset: name of the dataset; how other datasets are read doesn't matter.
    """
    if grid.split_fractions:
        return "protocol held_out scores a part"
    if _budget_leaves_images_out(grid, dataset):
        return f"the budget leaves images of {dataset} out"
    if dataset in grid.uncropped:
        return f"{dataset} is read without the model's crop"
    if not _has_own_geometry(grid, model):
        return "images are not brought to the model's own geometry"
    return None


def _budget_leaves_images_out(grid: Grid, dataset: str) -> bool:
    """Whether the budget leaves images of the dataset out.

    If their number is not stated, any limit counts.
    """
    limit = grid.budget.limit(dataset)
    images = grid.datasets[dataset].images
    if images is None:
        return limit != ALL
    return images_within(limit, images) < images


def _has_own_geometry(grid: Grid, model: str) -> bool:
    """Whether a model sees images at the size and crop with which it was published."""
    geometry = grid.geometry(model)
    published = grid.models[model].preprocessing
    has_own_size = geometry.size == published.input_size
    has_own_crop = geometry.crop_pct == published.crop_pct
    return bool(has_own_size and has_own_crop)
