"""Reasons why a measured accuracy can't be compared with the published one. No torch, no pandas.

They are known before anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.schema.budget import images_within
from rib.schema.run import ALL

if TYPE_CHECKING:
    from rib.catalog.published import PublishedAccuracy
    from rib.grid.grid import Grid

ROUNDING = 0.0005  # timm's tables have three decimals of crop_pct


def obstacle_to_comparison(grid: Grid, model: str, published: PublishedAccuracy) -> str | None:
    """Why an accuracy cannot be compared with the published one; None if it can.

    Args:
        grid: in which the accuracy is measured.
        model: name of the pretrained model in the grid.
        published: its published accuracy; how datasets other than its own are read doesn't matter.
    """
    dataset = published.dataset
    if grid.split_fractions:
        return "protocol held_out scores a part"
    if _budget_leaves_images_out(grid, dataset):
        return f"the budget leaves images of {dataset} out"
    if dataset in grid.uncropped:
        return f"{dataset} is read without the model's crop"
    return _obstacle_of_geometry(grid, model, published)


def _budget_leaves_images_out(grid: Grid, dataset: str) -> bool:
    """Whether the budget leaves images of the dataset out.

    If their number is not stated, any limit counts.
    """
    limit = grid.budget.limit(dataset)
    images = grid.datasets[dataset].images
    if images is None:
        return limit != ALL
    return images_within(limit, images) < images


def _obstacle_of_geometry(grid: Grid, model: str, published: PublishedAccuracy) -> str | None:
    """How size or crop differ from the published run; None if they don't.

    A source that does not state them used the model's own.
    """
    geometry = grid.geometry(model)
    preprocessing = grid.models[model].preprocessing
    size = published.image_size or preprocessing.input_size
    crop_pct = published.crop_pct or preprocessing.crop_pct
    if geometry.size != size:
        return f"images have {geometry.size} pixels, published at {size}"
    if abs(geometry.crop_pct - crop_pct) > ROUNDING:
        return f"the crop keeps {geometry.crop_pct:g}, published with {crop_pct:g}"
    return None
