"""Views of a grid's datasets: which images its jobs use at which size, without torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rib.base.params import replaced
from rib.data.data_settings import DatasetView
from rib.schema.geometry import Geometry

if TYPE_CHECKING:
    from rib.grid.grid import Grid


def view_at(grid: Grid, geometry: Geometry, datasets: Collection[str]) -> DatasetView:
    """The size in pixels, and the choice of images, with which a job reads datasets.

    The choice depends on the budget (most images per dataset), and on the pretraining proxy: images
    that stand in for a model's pretraining images.

    Args:
        geometry: size, crop and interpolation.
        datasets: all datasets that the job reads; the view does not depend on others.
    """
    images_per_class = None
    if grid.reference:
        images_per_class = grid.reference.images_per_class
    return DatasetView(
        geometry=geometry,
        budget=grid.budget.limits(datasets),
        images_per_class=images_per_class,
        uncropped=tuple(name for name in grid.uncropped if name in datasets),
        split_by=grid.family.split_by,
    )


def view_of(grid: Grid, model: str, datasets: Collection[str]) -> DatasetView:
    """The view of `view_at` for a model, at its input's size, and with the right proxy.

    Args:
        datasets: all datasets that the job reads; the view does not depend on others.
    """
    view = view_at(grid, grid.geometry(model), datasets)
    pretraining = grid.models[model].pretrain  # only for a model that is pretrained here
    if pretraining is None or grid.reference is None:
        return view
    if pretraining.dataset != grid.reference.dataset.name:
        return view
    # The model may be pretrained on a subset, of this size and seed. The proxy must be the same
    # subset, without images that the model has not seen.
    return replaced(
        view,
        pretraining_size=str(pretraining.size),
        pretraining_seed=pretraining.seed,
    )
